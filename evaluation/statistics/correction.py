"""Corrections for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from evaluation.statistics.crossed import Floats
from plumbline.errors import DataError


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold the chance of any false claim at alpha (Holm, 1979).

    In the order given. The smallest is multiplied by their number, the next by one less, and so
    on; none may come out below one that was smaller before, nor above 1.
    """
    values = _checked(p_values)
    order = np.argsort(values, kind="stable")
    steps = values[order] * (len(values) - np.arange(len(values)))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold the share of false claims at alpha (Benjamini, Hochberg, 1995)."""
    values = _checked(p_values)
    if not len(values):
        return []
    return [float(value) for value in stats.false_discovery_control(values, method="bh")]


def _checked(p_values: Sequence[float]) -> Floats:
    values = np.asarray(p_values, dtype=np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise DataError(
            f"p-value {place} is {values[place]}, and must lie between 0 and 1. Leave out a "
            "comparison that could not be made; it takes no part in the correction."
        )
    return values
