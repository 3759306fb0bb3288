"""Score against KL: the score at a KL, the area under the frontier, and the fit of Gao et al.

Distances are d = sqrt(KL(policy || reference)), as in Gao et al., "Scaling laws for reward model
overoptimization" (2023). An estimate of KL below 0 counts as 0.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from plumbline.errors import DataError
from plumbline.statistics.crossed_effects import Floats

Form = Literal["rl", "bon"]


class GaoFit(NamedTuple):
    """A fit of score against distance d, its R², and the KL at which it peaks.

    ``peak_kl`` is None where the fitted curve has no peak: it always rises, or falls from the
    start. A peak beyond the largest measured KL is an extrapolation.
    """

    alpha: float
    beta: float
    r_squared: float
    peak_kl: float | None
    form: Form


def at_kl(kl: ArrayLike, score: ArrayLike, target: float) -> float | None:
    """Return the score at a KL of ``target`` nats, by linear interpolation in sqrt(KL).

    ``kl`` and ``score`` [C] hold one value per checkpoint, in any order. Scores at the same KL are
    averaged. None outside the range of measured KL: nothing is extrapolated.
    """
    distance, height = _curve(kl, score)
    distance_wanted = _distance_to(target, "target")
    if not len(distance) or not distance[0] <= distance_wanted <= distance[-1]:
        return None
    return float(np.interp(distance_wanted, distance, height))


def area_to(kl: ArrayLike, score: ArrayLike, budget: float) -> float | None:
    """Return the mean score over sqrt(KL) from 0 to the square root of ``budget`` nats.

    The area under the piecewise linear frontier divided by its width, in the unit of the score.
    ``kl`` and ``score`` [C] as in ``at_kl``. None where the checkpoints do not reach from KL 0
    (include the reference itself) to the budget.
    """
    distance, height = _curve(kl, score)
    end = _distance_to(budget, "budget")
    if end == 0:
        raise DataError("the KL budget is 0; an area needs a width. Set a budget above 0.")
    if not len(distance) or distance[0] > 0 or distance[-1] < end:
        return None
    inside = distance < end
    places = np.append(distance[inside], end)
    heights = np.append(height[inside], np.interp(end, distance, height))
    return float(np.trapezoid(heights, places) / end)


def gao_fit(kl: ArrayLike, score: ArrayLike, form: Form = "rl") -> GaoFit:
    """Fit d(α - β log d) (``rl``) or d(α - β d) (``bon``, best of n) by least squares.

    ``kl`` and ``score`` [C]. Scores are relative to the score at KL 0, where both forms are 0 (Gao
    et al., 2023, equations 1 and 2, for the gold score). Points at KL 0 are ignored: they carry no
    information. R² is 1 minus the residual sum of squares over the total sum of squares around the
    mean of the points used; it is below 0 where the form does not fit. Peaks: d = exp(α/β - 1) and
    d = α / (2β).
    """
    if form not in ("rl", "bon"):
        raise DataError(f'form is "{form}"; it must be "rl" or "bon" (best of n).')
    distances, heights = _points(kl, score)
    is_used = distances > 0
    d, y = distances[is_used], heights[is_used]
    if len(np.unique(d)) < 3:
        raise DataError(
            f"there are {len(np.unique(d))} different KLs above 0; a fit of two coefficients "
            "needs at least three. Evaluate more checkpoints."
        )
    bend = d * np.log(d) if form == "rl" else d**2
    (alpha, minus_beta), *_ = np.linalg.lstsq(np.column_stack([d, bend]), y, rcond=None)
    beta = -float(minus_beta)
    residual = float(((y - alpha * d + beta * bend) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    r_squared = 1 - residual / total if total > 0 else 0.0
    return GaoFit(float(alpha), beta, r_squared, _peak_kl(float(alpha), beta, form), form)


def best_of_n_kl(n: int) -> float:
    """Return the KL of best-of-n sampling to its base: log n - (n - 1) / n nats.

    Exact where no two samples score the same; otherwise an upper bound (Beirami et al., 2024).
    """
    if n < 1:
        raise DataError(f"n is {n}; best of n needs n of 1 or more.")
    return math.log(n) - (n - 1) / n


def _peak_kl(alpha: float, beta: float, form: Form) -> float | None:
    if beta <= 0 or (form == "bon" and alpha <= 0):
        return None
    if form == "bon":
        return (alpha / (2 * beta)) ** 2
    exponent = 2 * (alpha / beta - 1)
    return math.exp(exponent) if exponent < 700 else None


def _distance_to(kl: float, name: str) -> float:
    if not (kl >= 0 and math.isfinite(kl)):
        raise DataError(f"the {name} KL is {kl}; it must be a finite number of nats, 0 or more.")
    return math.sqrt(kl)


def _points(kl: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Return distances and scores, both [C], one per checkpoint."""
    kls = np.asarray(kl, dtype=np.float64)
    heights = np.asarray(score, dtype=np.float64)
    if kls.ndim != 1 or kls.shape != heights.shape:
        raise DataError(
            f"KLs have shape {kls.shape} and scores {heights.shape}; give one of each per "
            "checkpoint."
        )
    invalid = ~(np.isfinite(kls) & np.isfinite(heights))
    if invalid.any():
        place = int(np.argmax(invalid))
        raise DataError(
            f"checkpoint {place} has KL {kls[place]} and score {heights[place]}; remove "
            "checkpoints that lack one of them."
        )
    return np.sqrt(np.maximum(kls, 0.0)), heights


def _curve(kl: ArrayLike, score: ArrayLike) -> tuple[Floats, Floats]:
    """Return the distances in order, each once, with the mean score at each."""
    distances, heights = _points(kl, score)
    places, which = np.unique(distances, return_inverse=True)
    means = np.bincount(which, weights=heights) / np.bincount(which)
    return places, means
