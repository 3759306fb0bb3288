"""Several tasks in one training: which rows come when, by weights that may move on the way.

Every row that is drawn depends on the seed, its place in the training and the weights that hold
there, and on nothing else, so a training that was killed draws the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from torch.utils.data import Sampler

from plumbline.seeds import derive

#: A batch is drawn while the step before it is taken, so weights hold from the step after that on.
_AHEAD = 2


def slower_tasks_first(weights: Sequence[float], falls: Sequence[float]) -> list[float]:
    """Return weights moved towards the tasks whose held-out loss falls slowest.

    w_i exp(- f_i / max_j |f_j|), normalised to the sum of ``weights``: a task that falls as fast as
    any gets e times less weight than one that does not fall.

    Args:
        weights: the given weights w, one per task.
        falls: how much each held-out loss fell since it was last measured, in nats; negative where
            it rose.
    """
    largest = max(map(abs, falls), default=0.0)
    if largest == 0:
        return list(weights)
    moved = [w * math.exp(-f / largest) for w, f in zip(weights, falls, strict=True)]
    scale = sum(weights) / sum(moved)
    return [w * scale for w in moved]


@dataclass
class TaskWeights:
    """The weights of tasks over a training, and the held-out losses by which they move."""

    start: Sequence[float]
    moves: bool = False
    history: list[tuple[int, list[float]]] = field(default_factory=list)
    """Steps, each with the weights that were set after it."""
    losses: list[float] | None = None
    """The last held-out loss of each task."""

    def at(self, step: int) -> Sequence[float]:
        """Return the weights by which the rows of a step (counted from 0) are drawn."""
        known = [weights for after, weights in self.history if after + _AHEAD <= step]
        return known[-1] if known else self.start

    def look(self, step: int, losses: Sequence[float]) -> None:
        """Take the held-out losses after ``step`` steps."""
        if self.moves and self.losses is not None:
            falls = [before - now for before, now in zip(self.losses, losses, strict=True)]
            self.history.append((step, slower_tasks_first(self.start, falls)))
        self.losses = list(losses)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {"history": self.history, "losses": self.losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.history = [(int(step), list(weights)) for step, weights in state["history"]]
        self.losses = None if state["losses"] is None else list(state["losses"])


class TaskSampler(Sampler[int]):
    """Draws rows of a dataset in which the tasks stand one behind another."""

    def __init__(
        self,
        sizes: Sequence[int],
        weights: TaskWeights,
        *,
        rows: int,
        rows_per_step: int,
        seed: int,
    ) -> None:
        """Draw ``rows`` rows in all; ``sizes`` are the numbers of rows of the tasks."""
        self._sizes, self._weights, self._rows = list(sizes), weights, rows
        self._per_step, self._seed = rows_per_step, seed

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        for place in range(self._rows):
            draw = Random(derive(self._seed, "rows of tasks", place))
            weights = self._weights.at(place // self._per_step)
            (task,) = draw.choices(range(len(self._sizes)), weights)
            yield sum(self._sizes[:task]) + draw.randrange(self._sizes[task])
