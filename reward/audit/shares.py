"""Shares with intervals: accuracy, by subset, and which subsets fall behind the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from plumbline.statistics import holm

CONFIDENCE = 0.95


class Share(NamedTuple):
    """A share of ``size`` cases with its interval."""

    value: float
    low: float
    high: float
    size: int


def share_of(points: Sequence[float], confidence: float = CONFIDENCE) -> Share:
    """Return the mean of points [N] (1, 1/2 or 0) with its interval (Wilson, 1927).

    A tie counts half. The interval takes the pairs as independent. Raises `ValueError` where there
    is no point.
    """
    count = len(points)
    if not count:
        raise ValueError("there is nothing to take a share of")
    value = sum(points) / count
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(value * (1 - value) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return Share(value, max(0.0, middle - half), min(1.0, middle + half), count)


def pair_points(margins: Sequence[float]) -> list[float]:
    """Return 1 per margin above 0 (chosen less rejected), 0 below, and 1/2 for a tie, [N]."""
    return [1.0 if margin > 0 else 0.0 if margin < 0 else 0.5 for margin in margins]


def difference_of(some: Share, others: Share, confidence: float = CONFIDENCE) -> Share:
    """Return some - others with its interval (Newcombe, 1998, method 10); the counts are added."""
    value = some.value - others.value
    below = math.hypot(some.value - some.low, others.high - others.value)
    above = math.hypot(some.high - some.value, others.value - others.low)
    return Share(value, value - below, value + above, some.size + others.size)


class WeakSubset(NamedTuple):
    """A subset whose accuracy is below that of all other pairs."""

    subset: str
    accuracy: Share
    others: Share
    p_value: float
    """Of Fisher's exact test on both shares, one-sided, after Holm's correction."""


def weak_subsets(
    *partitions: Mapping[str, Sequence[float]], alpha: float = 0.05
) -> list[WeakSubset]:
    """Return the subsets in which a model is right less often than elsewhere, the worst first.

    A partition holds the points of each pair once, by subset. Each subset is compared with the
    others of its partition by Fisher's exact test; a tie counts as wrong there. Holm's correction
    keeps the chance of any false finding below ``alpha``.
    """
    compared = [
        (name, own, [point for other in parts if other != name for point in parts[other]])
        for parts in partitions
        for name, own in parts.items()
    ]
    compared = [(name, own, rest) for name, own, rest in compared if own and rest]
    p_values = []
    for _, own, rest in compared:
        table = [[_right(own), len(own) - _right(own)], [_right(rest), len(rest) - _right(rest)]]
        p_values.append(float(stats.fisher_exact(np.array(table), alternative="less").pvalue))
    weak = [
        WeakSubset(name, share_of(own), share_of(rest), float(p_value))
        for (name, own, rest), p_value in zip(compared, holm(p_values), strict=True)
        if p_value < alpha
    ]
    return sorted(weak, key=lambda subset: subset.accuracy.value)


def _right(points: Sequence[float]) -> int:
    return sum(point == 1.0 for point in points)
