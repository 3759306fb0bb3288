"""How a minibatch is cut for passes through the models: by rows on a CPU, by tokens on a GPU.

Where several processes share a training, each takes its share of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

from torch import Tensor

from plumbline.lm.batches import by_length
from plumbline.lm.gpu.memory import Room, rows_by_tokens, tokens_that_fit
from plumbline.runs.processes import sharding, share_of, sums_of_all
from plumbline.training.processes import sum_gradients
from plumbline.training.sharding import left_to_sum, missing_passes
from rl.config import PPOConfig
from rl.learner import Learner
from rl.roles import Roles


class MicroBatches:
    """Cuts minibatches into parts that the memory holds, rows of similar length together."""

    def __init__(self, roles: Roles, config: PPOConfig, learners: Iterable[Learner]) -> None:
        self._roles, self._config = roles, config
        self._trained = [weight for part in learners for weight in part.parameters.values()]

    def run(
        self,
        lengths: Tensor,
        work: Callable[[Sequence[Tensor], int], tuple[Tensor, Tensor]],
        undo: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of what ``work`` returns in all processes, and sum the gradients.

        ``lengths`` [B]: tokens of each row. ``work`` gets the rows of each part, and how many
        more passes other processes make. Where a GPU's memory runs out, ``undo`` is called, and
        ``work`` again with smaller parts.
        """
        rows = share_of(len(lengths))
        shared = lengths[rows]

        def parts(cut: Sequence[Tensor]) -> list[Tensor]:
            return [part + rows.start for part in cut]

        if not len(shared):
            done = work([], missing_passes(0))
        elif sharding() is not None:  # a process may not make passes again by itself
            tokens = self._room.tokens if self._roles.model.device.type == "cuda" else None
            size = self._config.micro_batch_size
            cut = by_length(shared, size) if tokens is None else rows_by_tokens(shared, tokens)
            done = work(parts(cut), missing_passes(len(cut)))
        elif self._roles.model.device.type != "cuda":
            done = work(parts(by_length(shared, self._config.micro_batch_size)), 0)
        else:
            copies = 2 if self._roles.reads_together else 1
            done = self._room.use(
                lambda tokens: work(parts(rows_by_tokens(shared, tokens // copies)), 0), undo
            )
        sum_gradients(left_to_sum(self._trained))
        first, second = sums_of_all(done)
        return first, second

    @cached_property
    def _room(self) -> Room:
        """How many tokens go through a model at once."""
        config = self._config
        if config.micro_batch_tokens is not None:
            return Room(config.micro_batch_tokens)
        return Room(
            tokens_that_fit(
                self._roles.model,
                learns=True,
                checkpointing=config.activation_checkpointing,
                trained=self._trained,
            )
        )
