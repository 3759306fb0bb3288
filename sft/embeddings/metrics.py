"""How well queries find their texts, as pure functions of similarities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def ranks(similarities: Array, right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the rank, from 1, of the first right text of each query, [Q].

    Ties count against it. Raises `ValueError` where a query has no right text.

    Args:
        similarities: [Q, M], more is more alike.
        right: [Q, M], whether a text is an answer to a query; at least one is.
    """
    if not right.any(1).all():
        raise ValueError("a query has no right text to find")
    best = np.where(right, similarities, -np.inf).max(1, keepdims=True)
    return np.asarray(1 + ((similarities >= best) & ~right).sum(1))


def recall_at(k: int, places: npt.NDArray[np.int64]) -> float:
    """Return the share of queries whose first right text is among the first ``k``."""
    return float((places <= k).mean())


def mean_reciprocal_rank(places: npt.NDArray[np.int64]) -> float:
    """Return the mean of 1 / rank over the queries."""
    return float((1 / places).mean())
