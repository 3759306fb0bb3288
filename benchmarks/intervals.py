"""Intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval(values: Sequence[float] | np.ndarray) -> list[float | None]:
    """Return mean and half width of the 95 % interval over seeds, by Student's t.

    One seed has no interval.
    """
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        return [round(float(numbers.mean()), 4), None]
    half = stats.t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5
    return [round(float(numbers.mean()), 4), round(float(half), 4)]
