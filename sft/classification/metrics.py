"""How right and how sure a classifier is, as pure functions of probabilities and labels.

Shapes: ``N`` texts, ``L`` labels. ``truth`` [N, L] is 1 where a label applies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def decisions(probabilities: Array, *, several: bool) -> Array:
    """Return 1 where a label is given to a text, [N, L].

    Of labels that exclude each other the likeliest, of others all from 1/2 on.
    """
    if several:
        return (probabilities >= 0.5).astype(float)
    chosen = np.zeros_like(probabilities)
    chosen[np.arange(len(probabilities)), probabilities.argmax(1)] = 1
    return chosen


def f1_by_label(decided: Array, truth: Array) -> Array:
    """Return 2 TP / (2 TP + FP + FN) of each label, [L]; 0 where it is neither given nor true."""
    right = (decided * truth).sum(0)
    total = decided.sum(0) + truth.sum(0)
    return np.asarray(np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0))


def accuracy(decided: Array, truth: Array) -> float:
    """Return the share of texts whose labels are all right."""
    return float((decided == truth).all(1).mean())


def expected_calibration_error(
    confidence: Sequence[float] | Array, right: Sequence[float] | Array, bins: int = 15
) -> float:
    """Return the mean distance between confidence and the share that is right (Guo et al., 2017).

    Decisions are grouped by confidence into ``bins`` of equal width over [0, 1]; groups count by
    their size. Raises `ValueError` where there is no decision.
    """
    sure, is_right = np.asarray(confidence, float), np.asarray(right, float)
    if not len(sure):
        raise ValueError("there is no decision to be sure of")
    group = np.minimum((sure * bins).astype(int), bins - 1)
    error = 0.0
    for number in np.unique(group):
        here = group == number
        error += here.mean() * abs(sure[here].mean() - is_right[here].mean())
    return float(error)


def confidences(probabilities: Array, truth: Array, *, several: bool) -> tuple[Array, Array]:
    """Return how sure each decision is and whether it is right, both flat.

    With labels that exclude each other there is one decision per text, else one per text and label.
    """
    decided = decisions(probabilities, several=several)
    if several:
        sure = np.where(decided == 1, probabilities, 1 - probabilities)
        return sure.reshape(-1), (decided == truth).astype(float).reshape(-1)
    return probabilities.max(1), (decided * truth).sum(1)
