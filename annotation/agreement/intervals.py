"""Estimates with their uncertainty: Wilson's interval for shares, a bootstrap for the rest.

The bootstrap is the percentile one over items (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, section 13.3), which Zapf et al. ("Measuring inter-rater reliability for nominal
data", BMC Medical Research Methodology 16:93, 2016) recommend for Fleiss' kappa and
Krippendorff's alpha. It speaks of other items like these, judged by the same people.

Every figure of agreement is a function of sums over items, so that a resample is a row of item
weights and all resamples are one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.seeds import derive

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Key = Hashable
METHOD = "percentile bootstrap over items (Efron and Tibshirani, 1993, section 13.3)"
#: Where more of the resamples than this have no value, those that have one mislead.
MOST_UNDEFINED = 0.05
_NUMBERS_AT_A_TIME = 4_000_000


class Value(NamedTuple):
    """A figure, or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; what is undefined is None, with the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """How many items (or labels) the figure rests on."""
    reason: str = ""
    """Why there is no value, or a value without an interval."""


class Figure(NamedTuple):
    """A figure as found, and how it follows from sums over items.

    Shapes: S sums, R resamples.
    """

    name: Key
    value: Value
    n: int
    """How many items it rests on."""
    of: Callable[[Floats], Floats]
    """Takes sums (R, S) and returns (R,), NaN where the figure is undefined."""


class Sums(NamedTuple):
    """What each item adds to some sums, (I, S), and the figures that are functions of these."""

    items: csr_array
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are to be made."""

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def estimates(self, blocks: Sequence[Sums]) -> dict[Key, Estimate]:
        """Return every figure with its interval, by its name."""
        replicates = self.replicates(blocks)
        return {
            figure.name: self._estimate(figure, replicates[figure.name])
            for block in blocks
            for figure in block.figures
        }

    def replicates(self, blocks: Sequence[Sums]) -> dict[Key, Floats]:
        """Return every figure on every resample of the items, (R,) each.

        All figures are taken on the same resamples.
        """
        from scipy import sparse

        found: dict[Key, Floats] = {
            figure.name: np.full(self.resamples, np.nan)
            for block in blocks
            for figure in block.figures
        }
        n_items = blocks[0].items.shape[0] if blocks else 0
        if n_items == 0 or self.resamples == 0:
            return found
        items = sparse.hstack([block.items for block in blocks], format="csr")
        random = np.random.default_rng(derive(self.seed, "bootstrap over items"))
        step = max(1, _NUMBERS_AT_A_TIME // max(items.shape))
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            sums = _weights(random, size, n_items) @ items
            first = 0
            for block in blocks:
                last = first + block.items.shape[1]
                for figure in block.figures:
                    found[figure.name][start : start + size] = figure.of(sums[:, first:last])
                first = last
        return found

    def _estimate(self, figure: Figure, replicates: Floats) -> Estimate:
        value, n = figure.value.value, figure.n
        if value is None:
            return Estimate(None, n=n, reason=figure.value.reason)
        if len(replicates) == 0:
            return Estimate(value, n=n, reason="no interval: no resamples were asked for")
        defined = replicates[~np.isnan(replicates)]
        undefined = len(replicates) - len(defined)
        if undefined > MOST_UNDEFINED * len(replicates):
            reason = f"no interval: undefined on {undefined} of {len(replicates)} resamples"
            return Estimate(value, n=n, reason=reason)
        if np.ptp(defined) < 1e-12:
            reason = "no interval: the same on every resample, so a bootstrap sees no spread"
            return Estimate(value, n=n, reason=reason)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        note = f"undefined on {undefined} of {len(replicates)} resamples" if undefined else ""
        return Estimate(value, float(low), float(high), n, note)


def _weights(random: np.random.Generator, resamples: int, n_items: int) -> Floats:
    """Return (R, I): how often each item was drawn, with replacement, in each resample."""
    drawn = random.integers(0, n_items, size=(resamples, n_items))
    drawn += np.arange(resamples)[:, None] * n_items
    counts = np.bincount(drawn.ravel(), minlength=resamples * n_items)
    return counts.reshape(resamples, n_items).astype(np.float64)


def wilson(successes: int, n: int, *, nothing: str, confidence: float = 0.95) -> Estimate:
    """Return a share with the interval of Wilson (1927); ``nothing`` says why n may be 0."""
    from scipy import stats

    if n == 0:
        return Estimate(None, n=0, reason=nothing)
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high), n)
