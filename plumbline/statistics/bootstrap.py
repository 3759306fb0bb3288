"""Bootstrap intervals: over prompts for one policy, and over prompts and training seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from plumbline.statistics.crossed_effects import (
    Floats,
    check_confidence,
    paired_score_matrices,
    score_matrix,
    variance_of_mean,
)
from plumbline.statistics.estimates import Interval


def hierarchical_bootstrap(
    scores_a: ArrayLike,
    scores_b: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    corrected: bool = True,
) -> Interval:
    """Return a bootstrap interval for the mean of A (minus that of B) over prompts and seeds.

    ``scores_a`` [S_a, P] and ``scores_b`` [S_b, P] as in ``contrast``. Each resample draws prompts
    once for both methods, and training seeds for each method by itself (two-way resampling: Owen,
    "The pigeonhole bootstrap", 2007).

    Plain percentiles (``corrected=False``) cover far too rarely with few seeds: the variance over
    S resampled seeds is (S - 1) / S of what it should be, S seeds need quantiles of t and not of
    the normal distribution, and the seed x prompt residual is counted more than once. With
    ``corrected=True`` the distances of the percentiles from the estimate are stretched, so that
    the standard deviation of the resamples times the normal quantile equals the half-width of
    ``contrast``. The resamples then give the shape: an interval may be longer on one side.
    """
    check_confidence(confidence)
    if scores_b is None:
        a, b = score_matrix(scores_a), None
    else:
        a, b = paired_score_matrices(scores_a, scores_b)
    rng = np.random.default_rng(seed)
    prompt_weights = _counts(rng, resamples, a.shape[1])
    draws = _resampled(a, prompt_weights, rng)
    per_prompt, matrices = a.mean(axis=0), [a]
    if b is not None:
        draws = draws - _resampled(b, prompt_weights, rng)
        per_prompt, matrices = per_prompt - b.mean(axis=0), [a, b]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(draws, tails)
    std = float(draws.std(ddof=1))
    if corrected and std > 0:
        half = float(variance_of_mean(per_prompt, matrices).half_width(confidence))
        stretch = half / (std * float(stats.norm.ppf(tails[1])))
        mean = float(per_prompt.mean())
        low, high = mean + stretch * (low - mean), mean + stretch * (high - mean)
    return Interval(float(low), float(high))


def bootstrap_interval(
    values: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """Return a bootstrap interval (BCa; Efron, 1987) for the mean of ``values`` [P] over prompts.

    Only prompts are resampled: the interval covers other prompts like these for this one policy,
    and not what another training seed would give. Where all values are equal there is nothing to
    resample. Then the interval is the exact binomial one (Clopper and Pearson, 1934) for values
    of 0 or 1, and the value itself otherwise.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        raise ValueError(f"an interval needs two values, not {len(array)}")
    if np.ptp(array) == 0:
        value = float(array[0])
        if value not in (0.0, 1.0):
            return Interval(value, value)
        wins = round(value * len(array))
        exact = stats.binomtest(wins, len(array)).proportion_ci(confidence, method="exact")
        return Interval(float(exact.low), float(exact.high))
    result = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Interval(float(interval.low), float(interval.high))


def _counts(rng: np.random.Generator, resamples: int, size: int) -> Floats:
    """Return [resamples, size]: how often each index is drawn, as a share of all ``size`` draws."""
    indices = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
    counts = np.bincount(indices.ravel(), minlength=resamples * size)
    return counts.reshape(resamples, size) / size


def _resampled(values: Floats, prompts: Floats, rng: np.random.Generator) -> Floats:
    """Return the mean of values [S, P] in every resample, with new seeds drawn for each."""
    seed_weights = _counts(rng, len(prompts), len(values))
    means: Floats = np.einsum("rs,sr->r", seed_weights, values @ prompts.T)
    return means
