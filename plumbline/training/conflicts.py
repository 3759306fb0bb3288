"""Gradients of several tasks that point against each other (PCGrad; Yu et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor


def without_conflicts(gradients: Sequence[Tensor], order: Random | None = None) -> Tensor:
    """Return the sum of the tasks' gradients, each without what points against another's.

    Algorithm 1 of the paper: of g_i the part along g_j is taken away where g_i . g_j < 0, for all
    other tasks j in random order, g_j as it was; then all are added.

    Args:
        gradients: one per task, all of one shape [P].
        order: in what order others are looked at; None: as they stand.

    Returns:
        The sum, [P]. With one task, or none that conflict, the plain sum.
    """
    total = torch.zeros_like(gradients[0])
    for number, gradient in enumerate(gradients):
        others = [other for place, other in enumerate(gradients) if place != number]
        if order is not None:
            order.shuffle(others)
        kept = gradient.clone()
        for other in others:
            along = torch.dot(kept, other)
            if along < 0:  # then `other` is not 0
                kept -= along / torch.dot(other, other) * other
        total += kept
    return total
