"""Win rates between two methods, each with several training seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from plumbline.statistics.crossed_effects import (
    Contrast,
    Floats,
    MeanVariance,
    check_confidence,
    drop_rounding_noise,
    paired_score_matrices,
    score_matrix,
    variance_of_mean,
)


def head_to_head(scores_a: ArrayLike, scores_b: ArrayLike) -> Floats:
    """Return win scores [S_a, S_b, P]: 1 where A scores higher, 0 where lower, 1/2 for a tie.

    ``scores_a`` [S_a, P] and ``scores_b`` [S_b, P] are scores of responses to the same prompts.
    """
    a, b = paired_score_matrices(scores_a, scores_b)
    win_scores: Floats = (np.sign(a[:, None] - b[None]) + 1) / 2
    return win_scores


def win_rate(scores_a: ArrayLike, scores_b: ArrayLike, confidence: float = 0.95) -> Contrast:
    """Return the share of prompts on which A scores higher; a tie counts as half.

    Every seed of A meets every seed of B (``scores_a`` [S_a, P], ``scores_b`` [S_b, P]).
    ``difference`` is the win rate itself; the p-value is against 1/2. Prompts and the seeds of
    both sides are random, as in ``contrast``; a seed adds its mean over the seeds of the other
    side (Hájek's projection). The interval is built on the log odds, so it stays within (0, 1).
    Where all comparisons were won, or all lost, it is the exact binomial one over prompts.
    """
    check_confidence(confidence)
    win_scores = head_to_head(scores_a, scores_b)
    variance = variance_of_mean(
        win_scores.mean(axis=(0, 1)), [win_scores.mean(axis=1), win_scores.mean(axis=0)]
    )
    seeds = (win_scores.shape[0], win_scores.shape[1])
    return share_interval(
        float(win_scores.mean()), variance, win_scores.shape[2], confidence, seeds
    )


def win_share(win_scores: ArrayLike, confidence: float = 0.95) -> Contrast:
    """Return the mean of win scores [S, P] of one method, over its prompts and training seeds.

    Interval and p-value are those of `win_rate` against a baseline of one seed.
    """
    check_confidence(confidence)
    wins = score_matrix(win_scores)
    variance = variance_of_mean(wins.mean(axis=0), [wins])
    return share_interval(float(wins.mean()), variance, wins.shape[1], confidence, (len(wins),))


def share_interval(
    share: float, variance: MeanVariance, prompts: int, confidence: float, seeds: tuple[int, ...]
) -> Contrast:
    """Return a share with its interval on the log odds (delta method), tested against 1/2."""
    if share in (0.0, 1.0):
        exact = stats.binomtest(round(share * prompts), prompts)
        limits = exact.proportion_ci(confidence, method="exact")
        low, high, p_value = float(limits.low), float(limits.high), float(exact.pvalue)
    else:
        odds, slope = float(drop_rounding_noise(special.logit(share), 1.0)), share * (1 - share)
        half = float(variance.half_width(confidence)) / slope
        low, high = float(special.expit(odds - half)), float(special.expit(odds + half))
        p_value = variance.p_value(odds * slope)
    return Contrast(
        share,
        float(variance.se),
        variance.df(confidence),
        low,
        high,
        p_value,
        variance.seed_se,
        seeds,
    )
