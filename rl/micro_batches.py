"""How a minibatch is cut for passes through the models: by rows on a CPU, by tokens on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from plumbline.lm.batches import by_length
from plumbline.lm.gpu.memory import Room, rows_by_tokens, tokens_that_fit
from rl.config import PPOConfig
from rl.learner import Learner
from rl.roles import Roles

T = TypeVar("T")


class MicroBatches:
    """Cuts minibatches into parts that the memory holds, rows of similar length together."""

    def __init__(self, roles: Roles, config: PPOConfig, learners: Iterable[Learner]) -> None:
        self._roles, self._config = roles, config
        self._trained = [weight for part in learners for weight in part.parameters.values()]

    def run(
        self, lengths: Tensor, work: Callable[[Sequence[Tensor]], T], undo: Callable[[], None]
    ) -> T:
        """Return what ``work`` returns for the rows of each part.

        ``lengths`` [B] are the tokens of each row. Where a GPU's memory runs out, ``undo`` is
        called, and ``work`` again with smaller parts.
        """
        if self._roles.model.device.type != "cuda":
            return work(by_length(lengths, self._config.micro_batch_size))
        copies = 2 if self._roles.reads_together else 1
        return self._room.use(lambda tokens: work(rows_by_tokens(lengths, tokens // copies)), undo)

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
