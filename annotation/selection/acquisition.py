"""Which pairs are worth a person's time: scores of worth, and how a batch is drawn by them.

Shapes: E members of an ensemble of reward models, N pairs, D features of a pair. A *delta* is
what a member thinks of a pair: its score of response A less its score of response B.

A batch never holds what is labelled already, nor two pairs that are nearly the same. It depends
on the pairs' ids and not on their order: ties fall by an id's own number, drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from annotation.config import SelectionConfig
from plumbline.seeds import derive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_DECIMALS = 9
"""Worths and similarities that differ by less are ties: beyond this they are rounding errors,
which depend on where in memory a pair happens to stand."""


class Selection(NamedTuple):
    """A batch, as places in the sequence of pairs."""

    chosen: list[int]
    """In the order of the choice: the first is the one to label first."""
    worth: list[float]
    """What each of the chosen is worth by the strategy's score; 0 for ``uniform``."""
    near_identical: list[int]
    """What would have been chosen, had it not been nearly the same as one chosen before it."""


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

    ``ids`` has N different ids, ``deltas`` is E x N, ``features`` N x D (dense or sparse; only
    directions count). Fewer than ``config.count`` are chosen where fewer are left. Raises
    `ValueError` on shapes that do not fit, on ids that repeat and on numbers that are not finite.
    """
    import numpy as np

    _check(config, ids, deltas, features)
    ties = np.array([derive(seed, "select", name) for name in ids], dtype=np.int64)
    worth = np.round(worth_of(config, deltas), _DECIMALS)
    known = set(labeled)
    is_labeled = np.array([name in known for name in ids], dtype=bool)
    free = np.flatnonzero(~is_labeled)
    order = free[np.lexsort((ties[free], -worth[free]))]

    batch = _Batch(features, config.near_identical)
    if config.strategy == "diverse":
        candidates = order[: config.candidates * config.count]
        _spread(batch, candidates, np.flatnonzero(is_labeled), worth, ties, config.count)
    for place in order:  # all of the batch, or what k-center had too few candidates for
        if len(batch.chosen) == config.count:
            break
        batch.offer(int(place))
    return Selection(
        batch.chosen, [float(worth[place]) for place in batch.chosen], sorted(batch.refused)
    )


def worth_of(config: SelectionConfig, deltas: Floats) -> Floats:
    """Return what a label on each pair is worth by a strategy's score: N numbers, more is better.

    ``uniform`` finds all pairs worth 0, and leaves the choice to the seed.
    """
    import numpy as np

    if config.strategy == "uniform":
        return np.zeros(deltas.shape[1])
    if config.strategy == "margin":
        return closeness(deltas)
    probabilities = preference_probabilities(deltas, config.temperature)
    if config.measure == "variance":
        return vote_variance(probabilities)
    return mutual_information(probabilities)


def preference_probabilities(deltas: Floats, temperature: float = 1.0) -> Floats:
    """Return P(A over B) by each member, E x N: sigmoid(delta / temperature).

    The Bradley-Terry model, with the temperature in the unit of the scores.
    """
    from scipy.special import expit

    probabilities: Floats = expit(deltas / temperature)
    return probabilities


def vote_variance(probabilities: Floats) -> Floats:
    """Return the variance over members of P(A over B): N numbers in [0, 1/4].

    Gleave and Irving (2022, "Uncertainty Estimation for Language
    Reward Models") use an ensemble's disagreement for active learning, without gain over uniform
    selection in their setting. Divides by E, so one member has none.
    """
    variance: Floats = probabilities.var(axis=0)
    return variance


def mutual_information(probabilities: Floats) -> Floats:
    """Return what a label would tell of which member is right: N numbers in nats, in [0, ln 2].

    H(mean p) - mean H(p), as in BALD (Houlsby et al., 2011, equation 2) with the ensemble for the
    posterior. Members who all say 0.5 leave none: noise that no label can take away is worth
    nothing, which is what tells this from a small margin.
    """
    import numpy as np

    shared = _entropy(probabilities.mean(axis=0))
    # Never below 0 by Jensen's inequality; rounding may fall short of that.
    information: Floats = np.maximum(shared - _entropy(probabilities).mean(axis=0), 0.0)
    return information


def closeness(deltas: Floats) -> Floats:
    """Return minus the size of the mean delta: N numbers, at most 0, in the unit of the scores.

    Uncertainty sampling by margin: the pairs on which the ensemble as a whole leans least.
    """
    import numpy as np

    leaning: Floats = np.abs(deltas.mean(axis=0))
    return -leaning


def _entropy(probabilities: Floats) -> Floats:
    """Return the entropy of coins in nats."""
    from scipy.special import entr

    entropy: Floats = entr(probabilities) + entr(1 - probabilities)
    return entropy


class _Batch:
    """The chosen so far; whatever is nearly the same as one of them is refused."""

    def __init__(self, features: Any, near_identical: float | None) -> None:
        import numpy as np
        from sklearn.preprocessing import normalize

        self.directions = normalize(features)
        self.chosen: list[int] = []
        self.refused: set[int] = set()
        self._limit = np.inf if near_identical is None else round(near_identical, _DECIMALS)
        self._closest = np.full(self.directions.shape[0], -np.inf)

    def similarity(self, place: int) -> Floats:
        """Return the cosine between one pair's features and every pair's: N numbers."""
        import numpy as np

        product = self.directions @ self.directions[[place]].T
        dense = product.toarray() if hasattr(product, "toarray") else product
        return np.round(np.asarray(dense, dtype=np.float64)[:, 0], _DECIMALS)

    def offer(self, place: int) -> bool:
        """Choose a pair, unless it is there already or nearly the same as one that is."""
        import numpy as np

        if place in self.chosen or place in self.refused:
            return False
        if self._closest[place] >= self._limit:
            self.refused.add(place)
            return False
        self.chosen.append(place)
        if np.isfinite(self._limit):
            self._closest = np.maximum(self._closest, self.similarity(place))
        return True


def _spread(
    batch: _Batch,
    candidates: Integers,
    centers: Integers,
    worth: Floats,
    ties: Integers,
    count: int,
) -> None:
    """Fill a batch by k-center greedy (Sener and Savarese, 2018, algorithm 1).

    Each time the candidate goes in that is furthest from all that is labelled or chosen; among
    equally far ones, that of the greatest worth. The distance is the Euclidean one between
    directions, sqrt(2 - 2 cosine), so the furthest is the one whose largest cosine is smallest.
    """
    import numpy as np

    closest = np.full(len(worth), -np.inf)
    for center in centers:
        closest = np.maximum(closest, batch.similarity(int(center)))
    waiting = candidates
    while len(waiting) and len(batch.chosen) < count:
        place = int(waiting[np.lexsort((ties[waiting], -worth[waiting], closest[waiting]))[0]])
        waiting = waiting[waiting != place]
        if batch.offer(place):
            closest = np.maximum(closest, batch.similarity(place))


def _check(config: SelectionConfig, ids: Sequence[str], deltas: Floats, features: Any) -> None:
    import numpy as np

    count = len(ids)
    if len(set(ids)) < count:
        raise ValueError("two pairs have the same id")
    if deltas.ndim != 2 or deltas.shape[1] != count:
        raise ValueError(f"deltas have the shape {deltas.shape}, not (members, {count} pairs)")
    if features.shape[0] != count:
        raise ValueError(f"there are features of {features.shape[0]} pairs, but {count} pairs")
    if deltas.shape[0] < config.members_needed:
        raise ValueError(
            f"{config.strategy} needs {config.members_needed} members, not {deltas.shape[0]}"
        )
    if not np.isfinite(deltas).all():
        raise ValueError("a delta is not a finite number")
