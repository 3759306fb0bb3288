"""Two regressions on differences within pairs, with standard errors that assume little.

Neither has an intercept, so swapping the two responses of a pair changes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from plumbline.statistics.crossed_effects import Floats

_MOST_STEPS = 50
#: Log odds beyond this are those of data that a column separates: there is no estimate.
_SEPARATED = 50.0


class Coefficients(NamedTuple):
    """Estimates [K] and their covariance [K, K]."""

    values: Floats
    covariance: Floats

    def p_value(self, place: int) -> float:
        """Return the two-sided p-value of one of them against 0."""
        error = float(np.sqrt(self.covariance[place, place]))
        if error == 0:
            return 1.0 if self.values[place] == 0 else 0.0
        return float(2 * stats.norm.sf(abs(self.values[place]) / error))


def linear(columns: ArrayLike, target: ArrayLike) -> Coefficients | None:
    """Return least squares of a target [N] on columns [N, K], with errors of kind HC3.

    HC3 (MacKinnon and White, 1985) allows each pair a variance of its own. None where the columns
    do not determine the coefficients.
    """
    x, y = _arrays(columns, target)
    if len(x) <= x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]:
        return None
    inverse = np.linalg.inv(x.T @ x)
    values = inverse @ x.T @ y
    leverage = np.einsum("nk,kl,nl->n", x, inverse, x)
    residual = (y - x @ values) / np.maximum(1 - leverage, 1e-9)
    middle = (x * residual[:, None] ** 2).T @ x
    return Coefficients(values, inverse @ middle @ inverse)


def logistic(columns: ArrayLike) -> Coefficients | None:
    """Return the logistic regression of "the first response is chosen" on differences [N, K].

    Rows are differences of the chosen response less the rejected one, so every outcome is 1 and
    the log-likelihood is that of Bradley-Terry: sum log sigma(x b). Standard errors are of the
    sandwich kind. None where the columns do not determine the coefficients, or separate the pairs.
    """
    x = np.asarray(columns, dtype=np.float64)
    if len(x) <= x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]:
        return None
    scale = np.sqrt((x**2).mean(axis=0))
    z, b = x / scale, np.zeros(x.shape[1])
    for _ in range(_MOST_STEPS):
        rest = special.expit(-(z @ b))
        hessian = (z * (rest * (1 - rest))[:, None]).T @ z
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, z.T @ rest)
        b = b + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(b).max() > _SEPARATED:
            return None
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None
    rest = special.expit(-(z @ b))
    bread = np.linalg.inv((z * (rest * (1 - rest))[:, None]).T @ z)
    middle = (z * rest[:, None] ** 2).T @ z
    return Coefficients(b / scale, bread @ middle @ bread / np.outer(scale, scale))


def _arrays(columns: ArrayLike, target: ArrayLike) -> tuple[Floats, Floats]:
    return np.asarray(columns, dtype=np.float64), np.asarray(target, dtype=np.float64)
