"""How a batch of pairs to label is drawn by their worth.

Shapes: E members of an ensemble of reward models, N pairs, D features of a pair. A batch never
holds a pair that is labelled already, nor two pairs that are nearly identical. It depends on the
ids of the pairs and not on their order: ties are broken by a number that the seed gives each id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from annotation.selection.acquisition import DISAGREEMENT_MEASURES, STRATEGIES
from annotation.selection.config import SelectionConfig
from plumbline.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_DECIMALS = 9
"""Worths and similarities that differ by less are ties: smaller differences are rounding errors,
which depend on where in memory a pair happens to lie."""


class Selection(NamedTuple):
    """A batch, as positions in the sequence of pairs."""

    chosen: list[int]
    """In the order in which to label them."""
    worth: list[float]
    """The worth of each chosen pair by the strategy; 0 for ``uniform``."""
    near_identical: list[int]
    """Pairs left out because they are nearly identical to a chosen one."""


def select(
    config: SelectionConfig,
    ids: Sequence[str],
    deltas: Floats,
    features: Any,
    *,
    labeled: Collection[str] = (),
    seed: int,
) -> Selection:
    """Choose the pairs to label next.

    ``ids`` are N different ids, ``deltas`` is ``[E, N]``, ``features`` ``[N, D]`` (dense or sparse;
    only directions matter). Fewer than ``config.count`` are chosen where fewer are left. Raises
    `ValueError` on wrong shapes, repeated ids and numbers that are not finite.
    """
    import numpy as np

    strategy = STRATEGIES[config.strategy]
    _check(config, ids, deltas, features)
    ties = np.array([derive(seed, "select", name) for name in ids], dtype=np.int64)
    measure = DISAGREEMENT_MEASURES[config.measure]
    worth = np.round(strategy.worth(deltas, measure, config.temperature), _DECIMALS)
    labeled_ids = set(labeled)
    is_labeled = np.array([name in labeled_ids for name in ids], dtype=bool)
    free = np.flatnonzero(~is_labeled)
    order = free[np.lexsort((ties[free], -worth[free]))]

    batch = _Batch(features, config.near_identical)
    if strategy.spreads:
        candidates = order[: config.candidates * config.count]
        _k_center(batch, candidates, np.flatnonzero(is_labeled), worth, ties, config.count)
    for position in order:  # all of the batch, or the rest where there were too few candidates
        if len(batch.chosen) == config.count:
            break
        batch.offer(int(position))
    return Selection(
        batch.chosen,
        [float(worth[position]) for position in batch.chosen],
        sorted(batch.refused),
    )


class _Batch:
    """The pairs chosen so far; a pair that is nearly identical to one of them is refused."""

    def __init__(self, features: Any, near_identical: float | None) -> None:
        import numpy as np
        from sklearn.preprocessing import normalize

        self.directions = normalize(features)
        self.chosen: list[int] = []
        self.refused: set[int] = set()
        self._limit = np.inf if near_identical is None else round(near_identical, _DECIMALS)
        self._closest = np.full(self.directions.shape[0], -np.inf)

    def similarity(self, position: int) -> Floats:
        """Return the cosine between one pair's features and those of every pair, ``[N]``."""
        import numpy as np

        product = self.directions @ self.directions[[position]].T
        dense = product.toarray() if hasattr(product, "toarray") else product
        return np.round(np.asarray(dense, dtype=np.float64)[:, 0], _DECIMALS)

    def offer(self, position: int) -> bool:
        """Choose a pair, unless it is chosen already or nearly identical to a chosen one."""
        import numpy as np

        if position in self.chosen or position in self.refused:
            return False
        if self._closest[position] >= self._limit:
            self.refused.add(position)
            return False
        self.chosen.append(position)
        if np.isfinite(self._limit):
            self._closest = np.maximum(self._closest, self.similarity(position))
        return True


def _k_center(
    batch: _Batch,
    candidates: Integers,
    centers: Integers,
    worth: Floats,
    ties: Integers,
    count: int,
) -> None:
    """Fill a batch by k-center greedy (Sener and Savarese, 2018, algorithm 1).

    Each step takes the candidate that is furthest from everything labelled or chosen; among equally
    far ones, the one with the greatest worth. The distance is the Euclidean one between directions,
    sqrt(2 - 2 cosine), so the furthest candidate is the one whose largest cosine is smallest.
    """
    import numpy as np

    closest = np.full(len(worth), -np.inf)
    for center in centers:
        closest = np.maximum(closest, batch.similarity(int(center)))
    waiting = candidates
    while len(waiting) and len(batch.chosen) < count:
        position = int(waiting[np.lexsort((ties[waiting], -worth[waiting], closest[waiting]))[0]])
        waiting = waiting[waiting != position]
        if batch.offer(position):
            closest = np.maximum(closest, batch.similarity(position))


def _check(config: SelectionConfig, ids: Sequence[str], deltas: Floats, features: Any) -> None:
    import numpy as np

    count, members = len(ids), STRATEGIES[config.strategy].members
    if len(set(ids)) < count:
        raise ValueError("two pairs have the same id")
    if deltas.ndim != 2 or deltas.shape[1] != count:
        raise ValueError(f"deltas have the shape {deltas.shape}, not (members, {count} pairs)")
    if features.shape[0] != count:
        raise ValueError(f"there are features of {features.shape[0]} pairs, but {count} pairs")
    if deltas.shape[0] < members:
        raise ValueError(f"{config.strategy} needs {members} members, not {deltas.shape[0]}")
    if not np.isfinite(deltas).all():
        raise ValueError("a delta is not a finite number")
