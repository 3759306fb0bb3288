"""Corrections of p-values for many comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from plumbline.errors import DataError
from plumbline.statistics.crossed_effects import Floats


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values [N] that keep the chance of any false claim at alpha (Holm, 1979).

    The order stays. The smallest p-value is multiplied by N, the next by N - 1, and so on. An
    adjusted value is never below that of a smaller p-value, and never above 1.
    """
    values = _checked(p_values)
    order = np.argsort(values, kind="stable")
    steps = values[order] * (len(values) - np.arange(len(values)))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p-values [N] that keep the expected share of false claims at alpha.

    Benjamini and Hochberg (1995).
    """
    values = _checked(p_values)
    if not len(values):
        return []
    return [float(value) for value in stats.false_discovery_control(values, method="bh")]


def _checked(p_values: Sequence[float]) -> Floats:
    values = np.asarray(p_values, dtype=np.float64)
    invalid = ~((values >= 0) & (values <= 1))
    if invalid.any():
        place = int(np.argmax(invalid))
        raise DataError(
            f"p-value {place} is {values[place]}; it must lie between 0 and 1. Leave out "
            "comparisons that could not be made."
        )
    return values
