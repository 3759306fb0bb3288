"""Means, win points, one policy's intervals and divergences, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Band(NamedTuple):
    """A mean over training seeds with its interval; no interval where there is one seed."""

    mean: float
    low: float | None
    high: float | None


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    mean: float
    error: float


def win_points(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return 1 for each prompt where ours scores higher, 0 where theirs does, 1/2 for a tie.

    Both are scores of answers to the same prompts, in the same order.
    """
    return [
        1.0 if mine > other else 0.5 if mine == other else 0.0
        for mine, other in zip(ours, theirs, strict=True)
    ]


def mean_interval(
    points: Sequence[float], confidence: float, resamples: int, seed: int
) -> Interval:
    """Return a bootstrap interval (BCa; Efron, 1987) for the mean of points, one a prompt.

    Prompts are resampled, so the interval speaks of other prompts like these, for this one
    policy; it does not cover what another training seed would give. Where all points are equal a
    bootstrap knows no spread, and the exact binomial interval (Clopper and Pearson, 1934) is
    taken for points in [0, 1], the point itself otherwise.
    """
    values = np.asarray(points, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs two points, not {len(values)}")
    if np.ptp(values) == 0:
        value = float(values[0])
        if value not in (0.0, 1.0):
            return Interval(value, value)
        wins = round(value * len(values))
        exact = stats.binomtest(wins, len(values)).proportion_ci(confidence, method="exact")
        return Interval(float(exact.low), float(exact.high))
    result = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return Interval(float(interval.low), float(interval.high))


def sequence_kl(logprobs: Sequence[float], reference_logprobs: Sequence[float]) -> Estimate:
    """Return KL(policy || reference) over whole responses, in nats, with its standard error.

    The mean of log p(y) - log q(y) over responses y that the policy sampled (Schulman's k1 on
    sequences): unbiased, and in a finite sample possibly below 0. Arguments are the
    log-probabilities of whole responses.
    """
    return mean_and_error([p - q for p, q in zip(logprobs, reference_logprobs, strict=True)])


def mean_and_error(values: Sequence[float]) -> Estimate:
    """Return the mean and its standard error (0 for a single value)."""
    array = np.asarray(values, dtype=float)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else 0.0
    return Estimate(float(array.mean()), error)


def band(values: Sequence[float], confidence: float = 0.95) -> Band:
    """Return the mean over training seeds, one value each, and its interval by Student's t."""
    mean, error = mean_and_error(values)
    if len(values) < 2:
        return Band(mean, None, None)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Band(mean, mean - half, mean + half)
