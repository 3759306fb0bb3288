"""The hierarchical bootstrap, as it stands in textbooks and made to cover with few seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from evaluation.statistics.crossed import Floats, check_confidence, checked, checked_pair, spread
from evaluation.statistics.estimates import Interval


def hierarchical_bootstrap(
    ours: ArrayLike,
    theirs: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    corrected: bool = True,
) -> Interval:
    """Return a bootstrap interval for our mean (minus theirs): prompts and seeds are resampled.

    ``ours`` (S_a, P) and ``theirs`` (S_b, P) as in ``contrast``. Each resample draws prompts once
    for both methods and training seeds for each by itself (two-way resampling: Owen, "The
    pigeonhole bootstrap", 2007).

    As it stands (``corrected=False``, plain percentiles) this covers far too seldom with few
    seeds: the variance over S resampled seeds is (S - 1) / S of what it should be, and S seeds
    deserve t's quantiles and not the normal ones, while the seed x prompt rest is counted more
    than once. Corrected, the percentiles' distances from the estimate are stretched so that the
    resamples' standard deviation times the normal quantile becomes the half-width of ``contrast``;
    the resamples give the shape, which lets an interval be longer on one side.
    """
    check_confidence(confidence)
    if theirs is None:
        mine, other = checked(ours), None
    else:
        mine, other = checked_pair(ours, theirs)
    random = np.random.default_rng(seed)
    drawn_prompts = _counts(random, resamples, mine.shape[1])
    draws = _resampled(mine, drawn_prompts, random)
    per_prompt, arrays = mine.mean(axis=0), [mine]
    if other is not None:
        draws = draws - _resampled(other, drawn_prompts, random)
        per_prompt, arrays = per_prompt - other.mean(axis=0), [mine, other]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(draws, tails)
    deviation = float(draws.std(ddof=1))
    if corrected and deviation > 0:
        half = float(spread(per_prompt, arrays).half_width(confidence))
        stretch = half / (deviation * float(stats.norm.ppf(tails[1])))
        mean = float(per_prompt.mean())
        low, high = mean + stretch * (low - mean), mean + stretch * (high - mean)
    return Interval(float(low), float(high))


def _counts(random: np.random.Generator, resamples: int, size: int) -> Floats:
    """Return (resamples, size): how often each is drawn, as a share of all ``size`` draws."""
    drawn = random.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * size)
    return counts.reshape(resamples, size) / size


def _resampled(values: Floats, prompts: Floats, random: np.random.Generator) -> Floats:
    """Return the mean of values (S, P) in every resample, with seeds drawn anew in each."""
    seeds = _counts(random, len(prompts), len(values))
    found: Floats = np.einsum("rs,sr->r", seeds, values @ prompts.T)
    return found
