"""The temperature that turns differences of scores into probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

#: In means of the absolute margin: beyond these the data show nothing more about a temperature.
_LEAST, _MOST = 1e-4, 1e4


def fit_temperature(margins: ArrayLike) -> float | None:
    """Return the temperature with the least cross-entropy on pairs (Guo et al., 2017).

    ``margins`` [N]: chosen score less rejected score. None where no temperature is best: the model
    is right on every pair (colder is always better) or no better than chance (hotter is).
    """
    m = np.asarray(margins, dtype=np.float64)
    if not len(m) or not np.isfinite(m).all():
        raise ValueError("a temperature needs margins, all of them finite")
    if m.sum() <= 0 or (m >= 0).all():
        return None

    def slope(inverse: float) -> float:
        return float((m * special.expit(-inverse * m)).mean())

    scale = float(np.abs(m).mean())
    low, high = _LEAST / scale, _MOST / scale
    if slope(high) > 0 or slope(low) < 0:
        return None
    return 1 / float(optimize.brentq(slope, low, high, xtol=1e-12 / scale))
