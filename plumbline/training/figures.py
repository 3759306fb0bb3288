"""Figures of a training: read from where they were computed, and those of all processes as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plumbline.runs.processes import number_of_processes, of_all_processes


def read_numbers(numbers: Sequence[Tensor | float]) -> list[float]:
    """Return numbers, those on a device read from it at once."""
    tensors = [n.detach().reshape(()) for n in numbers if isinstance(n, Tensor)]
    read = iter(torch.stack([t.double() for t in tensors]).tolist() if tensors else [])
    return [next(read) if isinstance(n, Tensor) else float(n) for n in numbers]


Means = tuple[Mapping[str, float], float]
"""Means by name, and the number of rows (or tokens) that they are over."""


def pooled(own: Sequence[Means]) -> dict[str, float]:
    """Return means over the rows of all processes, of those over the rows of each.

    In one process no name may stand twice.
    """
    if number_of_processes() == 1:
        return {name: value for means, _ in own for name, value in means.items()}
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for means, weight in (entry for entries in of_all_processes(list(own)) for entry in entries):
        for name, value in means.items():
            sums[name] = sums.get(name, 0.0) + (value * weight if weight else 0.0)
            weights[name] = weights.get(name, 0.0) + weight
    return {name: sums[name] / weights[name] if weights[name] else 0.0 for name in sums}
