"""How true a model's probabilities are: P(chosen over rejected) = sigmoid(margin / temperature)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from plumbline.statistics.crossed_effects import Floats
from reward.audit.shares import Share, share_of

_BINS = 10
#: Beyond these the data say nothing more of a temperature.
_LEAST, _MOST = 1e-4, 1e4


class Bin(NamedTuple):
    """Pairs of similar confidence."""

    confidence: float
    """The mean of sigmoid(|margin| / temperature)."""
    accuracy: Share
    """How often the response with the higher score is the chosen one."""


class PairCalibration(NamedTuple):
    """How well confidence and accuracy agree."""

    temperature: float
    bins: list[Bin]
    ece: float
    """Expected calibration error: mean distance of confidence and accuracy over the pairs."""
    brier: float
    """Mean squared error of the probability that the chosen response is the better."""
    log_loss: float
    """Mean cross-entropy, nats per pair."""


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


def pair_calibration(
    margins: ArrayLike, temperature: float = 1.0, bins: int = _BINS
) -> PairCalibration:
    """Return the calibration of margins [N] at a temperature, in bins of equal count.

    Confidence is that of the response with the higher score, so it is at least 1/2; pairs with a
    tie have 1/2, and are right half the time.
    """
    m = np.asarray(margins, dtype=np.float64) / temperature
    if not len(m):
        raise ValueError("there is no pair to be calibrated on")
    confidence = special.expit(np.abs(m))
    points = np.where(m > 0, 1.0, np.where(m < 0, 0.0, 0.5))
    groups = [g for g in np.array_split(np.argsort(confidence, kind="stable"), bins) if len(g)]
    table = [Bin(float(confidence[g].mean()), share_of(points[g].tolist())) for g in groups]
    error = sum(b.accuracy.size * abs(b.confidence - b.accuracy.value) for b in table)
    return PairCalibration(
        temperature,
        table,
        float(error / len(m)),
        float((special.expit(-m) ** 2).mean()),
        float(np.logaddexp(0.0, -m).mean()),
    )


def probabilities(margins: ArrayLike, temperature: float) -> Floats:
    """Return the probability that each chosen response is the better, [N]."""
    result: Floats = special.expit(np.asarray(margins, dtype=np.float64) / temperature)
    return result
