"""Power: what a design could have detected."""

from __future__ import annotations

import math

from scipy import optimize, stats

from plumbline.errors import DataError


def power_at(effect: float, error: float, df: float, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided t-test at ``alpha`` finds a true difference ``effect``.

    ``error`` and ``df`` are a design's standard error and degrees of freedom, as ``contrast``
    returns them; noncentral t.
    """
    _check(error, df, alpha)
    if error == 0:
        return 1.0 if effect else alpha
    return _power(abs(effect) / error, df, alpha)


def detectable(error: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the smallest true difference that a two-sided t-test finds with chance ``power``."""
    _check(error, df, alpha)
    if not alpha < power < 1:
        raise DataError(f"power is {power}; it must lie between alpha ({alpha}) and 1.")
    upper = 1.0
    while _power(upper, df, alpha) < power:
        upper *= 2
    root = float(optimize.brentq(lambda shift: _power(shift, df, alpha) - power, 0.0, upper))
    return root * error


def _power(shift: float, df: float, alpha: float) -> float:
    """Return the power where the true difference is ``shift`` standard errors."""
    limit = float(stats.t.ppf(1 - alpha / 2, df))
    # |T| > limit for T = (Z + shift) / sqrt(chi² / df). scipy's noncentral t loses the far tails.
    above = float(stats.nct.sf(limit, df, shift))
    below = float(stats.nct.cdf(-limit, df, shift)) if shift < 5 else 0.0
    return min(1.0, above + below)


def _check(error: float, df: float, alpha: float) -> None:
    if not (error >= 0 and math.isfinite(error)):
        raise DataError(f"the standard error is {error}; it must be a number from 0.")
    if not (df > 0 and math.isfinite(df)):
        raise DataError(f"the degrees of freedom are {df}; they must be a number above 0.")
    if not 0 < alpha < 1:
        raise DataError(f"alpha is {alpha}; it must lie between 0 and 1, such as 0.05.")
