"""Win rates between two methods with several training seeds each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from evaluation.statistics.crossed import (
    Contrast,
    Floats,
    Spread,
    check_confidence,
    checked_pair,
    spread,
    unrounded,
)


def head_to_head(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    """Return (S_a, S_b, P): 1 where our seed's answer scores higher, 0 where lower, 1/2 for a tie.

    ``ours`` (S_a, P) and ``theirs`` (S_b, P) are scores of answers to the same prompts.
    """
    mine, other = checked_pair(ours, theirs)
    points: Floats = (np.sign(mine[:, None] - other[None]) + 1) / 2
    return points


def win_rate(ours: ArrayLike, theirs: ArrayLike, confidence: float = 0.95) -> Contrast:
    """Return the share of prompts on which ours scores higher, a tie counting half.

    Every seed of ours meets every seed of theirs (``ours`` (S_a, P), ``theirs`` (S_b, P)).
    ``difference`` is the win rate itself; the p-value is against 1/2. Seeds of both sides and
    prompts are random, as in ``contrast``; what a seed adds is its mean over the other side's
    seeds (Hájek's projection). The interval is built on the log odds, so it stays within (0, 1);
    where every comparison was won, or every one lost, it is the exact binomial one over prompts.
    """
    check_confidence(confidence)
    points = head_to_head(ours, theirs)
    found = spread(points.mean(axis=(0, 1)), [points.mean(axis=1), points.mean(axis=0)])
    seeds = (points.shape[0], points.shape[1])
    return of_a_share(float(points.mean()), found, points.shape[2], confidence, seeds)


def of_a_share(
    share: float, found: Spread, prompts: int, confidence: float, seeds: tuple[int, ...]
) -> Contrast:
    """Put an interval on the log odds around a share (delta method), and test it against 1/2."""
    if share in (0.0, 1.0):
        exact = stats.binomtest(round(share * prompts), prompts)
        limits = exact.proportion_ci(confidence, method="exact")
        low, high, p_value = float(limits.low), float(limits.high), float(exact.pvalue)
    else:
        odds, slope = float(unrounded(special.logit(share), 1.0)), share * (1 - share)
        half = float(found.half_width(confidence)) / slope
        low, high = float(special.expit(odds - half)), float(special.expit(odds + half))
        p_value = found.p_value(odds * slope)
    return Contrast(
        share,
        float(found.error),
        found.df(confidence),
        low,
        high,
        p_value,
        found.seed_error,
        seeds,
    )
