"""Means with standard errors, win scores and KL, as pure functions."""

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
    """A mean over training seeds with its interval; no interval with a single seed."""

    mean: float
    low: float | None
    high: float | None


class Estimate(NamedTuple):
    """A mean over samples and its standard error."""

    mean: float
    se: float


def win_scores(scores: Sequence[float], baseline_scores: Sequence[float]) -> list[float]:
    """Return 1 for each prompt where the score beats the baseline, 0 where it loses, 1/2 for a tie.

    Both arguments [P] are scores of responses to the same prompts, in the same order.
    """
    return [
        1.0 if score > baseline else 0.5 if score == baseline else 0.0
        for score, baseline in zip(scores, baseline_scores, strict=True)
    ]


def sequence_kl(logprobs: Sequence[float], reference_logprobs: Sequence[float]) -> Estimate:
    """Return KL(policy || reference) over whole responses, in nats, with its standard error.

    The mean of log p(y) - log q(y) over responses y that the policy sampled (Schulman's k1 on
    sequences). It is unbiased; in a finite sample it may be below 0. Both arguments [P] are the
    log-probabilities of whole responses.
    """
    return mean_and_se([p - q for p, q in zip(logprobs, reference_logprobs, strict=True)])


def mean_and_se(values: Sequence[float]) -> Estimate:
    """Return the mean of values [N] and its standard error (0 for a single value)."""
    array = np.asarray(values, dtype=float)
    se = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else 0.0
    return Estimate(float(array.mean()), se)


def band(values: Sequence[float], confidence: float = 0.95) -> Band:
    """Return the mean over training seeds, values [S], and its interval by Student's t."""
    mean, se = mean_and_se(values)
    if len(values) < 2:
        return Band(mean, None, None)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * se
    return Band(mean, mean - half, mean + half)
