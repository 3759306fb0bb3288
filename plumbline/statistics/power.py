"""Power: which difference a design could have detected."""

from __future__ import annotations

import math

from scipy import optimize, stats

from plumbline.errors import DataError


def power_at(effect: float, se: float, df: float, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided t-test at ``alpha`` finds a true difference ``effect``.

    ``se`` and ``df`` are the standard error and degrees of freedom of the design, as ``contrast``
    returns them. Noncentral t.
    """
    _check(se, df, alpha)
    if se == 0:
        return 1.0 if effect else alpha
    return _power(abs(effect) / se, df, alpha)


def detectable(se: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided t-test finds with chance ``power``."""
    _check(se, df, alpha)
    if not alpha < power < 1:
        raise DataError(f"power is {power}; it must lie between alpha ({alpha}) and 1.")
    upper = 1.0
    while _power(upper, df, alpha) < power:
        upper *= 2
    root = float(optimize.brentq(lambda shift: _power(shift, df, alpha) - power, 0.0, upper))
    return root * se


def _power(shift: float, df: float, alpha: float) -> float:
    """Return the power where the true difference is ``shift`` standard errors."""
    limit = float(stats.t.ppf(1 - alpha / 2, df))
    # |T| > limit for T = (Z + shift) / sqrt(chi² / df). scipy's noncentral t loses the far tails.
    above = float(stats.nct.sf(limit, df, shift))
    below = float(stats.nct.cdf(-limit, df, shift)) if shift < 5 else 0.0
    return min(1.0, above + below)


def _check(se: float, df: float, alpha: float) -> None:
    if not (se >= 0 and math.isfinite(se)):
        raise DataError(f"the standard error is {se}; it must be a finite number, 0 or more.")
    if not (df > 0 and math.isfinite(df)):
        raise DataError(f"the degrees of freedom are {df}; they must be a number above 0.")
    if not 0 < alpha < 1:
        raise DataError(f"alpha is {alpha}; it must lie between 0 and 1, such as 0.05.")
