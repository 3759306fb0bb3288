"""How true a model's probabilities are: P(chosen over rejected) = sigmoid(margin / temperature)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from plumbline.statistics.crossed_effects import Floats
from reward.audit.shares import Share, share_of

_BINS = 10


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
