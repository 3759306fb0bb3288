"""How good a reward model is, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence


def pairwise_accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float:
    """Return the share of pairs whose chosen side scores higher; a tie counts half.

    Raises `ValueError` where there is no pair.
    """
    if not chosen:
        raise ValueError("there is no pair to be right about")
    points = [
        1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(chosen, rejected, strict=True)
    ]
    return sum(points) / len(points)
