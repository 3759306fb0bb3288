"""Estimates with their uncertainty: Wilson's interval for shares, a bootstrap for the rest.

The bootstrap is the percentile one over items (Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, section 13.3), which Zapf et al. ("Measuring inter-rater reliability for nominal
data", BMC Medical Research Methodology 16:93, 2016) recommend for Fleiss' kappa and
Krippendorff's alpha. It is about other items like these, judged by the same people.

Every statistic of agreement is a function of sums over items. So a resample is a row of item
weights, and all resamples are one product of matrices.

Shapes: I items, R resamples, N statistics of one kind (one per pair of people, say), S sums of
each statistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.seeds import derive

if TYPE_CHECKING:
    from scipy.sparse import csc_array

Floats = NDArray[np.float64]
Key = Hashable
METHOD = "percentile bootstrap over items (Efron and Tibshirani, 1993, section 13.3)"
#: Where more of the resamples than this have no value, those that have one mislead.
MOST_UNDEFINED = 0.05
_NUMBERS_AT_A_TIME = 4_000_000


class Value(NamedTuple):
    """A number, or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval. An undefined one is None, with the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """How many items (or labels) the number rests on."""
    reason: str = ""
    """Why there is no value, or a value without an interval."""


@dataclass(frozen=True)
class Statistic:
    """One kind of statistic, for N pairs of people, say: values, and how they follow from sums."""

    names: Sequence[Key]
    """``[N]``"""
    values: Sequence[Value]
    """``[N]``"""
    counts: Sequence[int]
    """How many items each of them rests on, ``[N]``."""
    of: Callable[[Floats], Floats]
    """From sums ``[R, N, S]`` to values ``[R, N]``; NaN where a statistic is undefined."""

    @classmethod
    def single(
        cls, name: Key, value: Value, count: int, of: Callable[[Floats], Floats]
    ) -> Statistic:
        """Return a kind of which there is one."""
        return cls([name], [value], [count], of)


class Sums(NamedTuple):
    """What each item adds to some sums, and the statistics that are functions of these sums."""

    items: csc_array
    """``[I, N S]``: the S sums of the first of N statistics, then those of the second, ..."""
    statistics: tuple[Statistic, ...]

    @property
    def size(self) -> int:
        """How many statistics of each kind there are: N."""
        return len(self.statistics[0].names)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def estimates(self, blocks: Sequence[Sums]) -> dict[Key, Estimate]:
        """Return every statistic with its interval, by name. All use the same resamples."""
        estimates: dict[Key, Estimate] = {}
        n_items = blocks[0].items.shape[0] if blocks else 0
        weights = self._weights(n_items)
        for block in blocks:
            for start, stop in self._chunks(block):
                for statistic in block.statistics:
                    replicates = self._replicates(block, statistic, weights, start, stop)
                    chunk = slice(start, stop)
                    intervals = self._intervals(replicates)
                    for name, value, n, interval in zip(
                        statistic.names[chunk],
                        statistic.values[chunk],
                        statistic.counts[chunk],
                        intervals,
                        strict=True,
                    ):
                        estimates[name] = _estimate(value, n, interval)
        return estimates

    def replicates(self, block: Sums) -> dict[Key, Floats]:
        """Return every statistic of a block on every resample of the items, ``[R]`` each."""
        weights = self._weights(block.items.shape[0])
        return {
            name: values
            for statistic in block.statistics
            for name, values in zip(
                statistic.names,
                self._replicates(block, statistic, weights, 0, block.size).T,
                strict=True,
            )
        }

    def _chunks(self, block: Sums) -> list[tuple[int, int]]:
        """Return ranges of statistics that fit into memory together."""
        if block.size == 0:
            return []
        width = block.items.shape[1] // block.size
        step = max(1, _NUMBERS_AT_A_TIME // max(1, self.resamples * width))
        return [(start, min(start + step, block.size)) for start in range(0, block.size, step)]

    def _replicates(
        self, block: Sums, statistic: Statistic, weights: Floats, start: int, stop: int
    ) -> Floats:
        """Return statistics ``start`` to ``stop`` on every resample, ``[R, stop - start]``."""
        if weights.size == 0:
            return np.full((len(weights), stop - start), np.nan)
        size = block.items.shape[1] // block.size
        columns = block.items[:, start * size : stop * size]
        sums = np.asarray((columns.T @ weights.T).T)
        return statistic.of(sums.reshape(len(weights), stop - start, size))

    def _weights(self, n_items: int) -> Floats:
        """Return how often each item is drawn, with replacement, in each resample, ``[R, I]``."""
        if n_items == 0 or self.resamples == 0:
            return np.zeros((self.resamples, 0))
        random = np.random.default_rng(derive(self.seed, "bootstrap over items"))
        step = max(1, _NUMBERS_AT_A_TIME // n_items)
        weights = np.empty((self.resamples, n_items))
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            drawn = random.integers(0, n_items, size=(size, n_items))
            drawn += np.arange(size)[:, None] * n_items
            counts = np.bincount(drawn.ravel(), minlength=size * n_items)
            weights[start : start + size] = counts.reshape(size, n_items)
        return weights

    def _intervals(self, replicates: Floats) -> list[_Interval]:
        """Return an interval, or the reason why there is none, for each column of ``[R, N]``."""
        resamples, count = replicates.shape
        if resamples == 0:
            return [_Interval(reason="no interval: no resamples were asked for")] * count
        undefined = np.isnan(replicates).sum(axis=0)
        tail = (1 - self.confidence) / 2
        ends = np.full((2, count), np.nan)
        constant = np.zeros(count, dtype=bool)
        ordered = np.sort(replicates, axis=0)  # undefined ones last
        for gone in np.unique(undefined[undefined <= MOST_UNDEFINED * resamples]):
            columns = undefined == gone
            defined = ordered[: resamples - gone, columns]
            ends[:, columns] = np.quantile(defined, [tail, 1 - tail], axis=0)
            with np.errstate(invalid="ignore"):
                constant[columns] = defined[-1] - defined[0] < 1e-12
        intervals = []
        for gone, low, high, same in zip(undefined, *ends, constant, strict=True):
            if gone > MOST_UNDEFINED * resamples:
                reason = f"no interval: undefined on {gone} of {resamples} resamples"
                intervals.append(_Interval(reason=reason))
            elif same:
                reason = "no interval: the same on every resample, so there is no variation"
                intervals.append(_Interval(reason=reason))
            else:
                note = f"undefined on {gone} of {resamples} resamples" if gone else ""
                intervals.append(_Interval(float(low), float(high), note))
        return intervals


class _Interval(NamedTuple):
    low: float | None = None
    high: float | None = None
    reason: str = ""


def _estimate(value: Value, n: int, interval: _Interval) -> Estimate:
    if value.value is None:
        return Estimate(None, n=n, reason=value.reason)
    return Estimate(value.value, interval.low, interval.high, n, interval.reason)


def wilson(successes: int, n: int, *, nothing: str, confidence: float = 0.95) -> Estimate:
    """Return a share with the interval of Wilson (1927); ``nothing`` says why n may be zero.

    With z the quantile of the normal distribution and p the share, it is
    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).
    """
    from statistics import NormalDist

    if n == 0:
        return Estimate(None, n=0, reason=nothing)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, scale = successes / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # At the ends the interval ends exactly there; rounding must not put it beyond.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return Estimate(p, low, high, n)
