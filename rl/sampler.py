"""The next round's responses: drawn when they are asked for, or while the policy learns.

One step behind, a round's responses are drawn by the policy that the round before began with. An
engine that works elsewhere draws them while that round is learnt from; one in this process draws
them first, which saves no time and gives the same responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from plumbline.data.records import Conversation
from plumbline.lm.generation import ValueHead
from plumbline.lm.policy import Policy
from plumbline.seeds import derive, rng
from rl.config import PPOConfig
from rl.engines import OwnEngine, RolloutEngine
from rl.episodes import Environment, Episode, play

if TYPE_CHECKING:
    from rl.state import State


class Upcoming:
    """Hands out each round's responses."""

    def __init__(
        self,
        engine: RolloutEngine,
        policy: Policy,
        prompts: Sequence[Conversation],
        config: PPOConfig,
        seed: int,
        environment: Environment | None = None,
    ) -> None:
        self._engine, self._policy, self._prompts = engine, policy, prompts
        self._config, self._seed, self._environment = config, seed, environment
        self._behind = config.rollouts.steps_behind > 0
        self._future: Future[list[Episode]] | None = None
        self._thread = ThreadPoolExecutor(1) if self._behind and engine.remote else None

    @property
    def recomputes(self) -> bool:
        """Whether log-probabilities must be computed anew, as training computes them.

        Sampling and training take different ways through the same weights. In float32 that is a
        matter of rounding; where either computes in less, or in another format, it is not.
        """
        asked = self._config.rollouts.recompute_logprobs
        if asked is not None:
            return asked
        held: torch.dtype = self._policy.model.get_input_embeddings().weight.dtype
        same = self._config.precision == "model" and held.itemsize >= torch.float32.itemsize
        return self._behind or not self._engine.exact or not same

    def note_values(self, head: ValueHead) -> bool:
        """Let the engine note values with a head on the policy's trunk; return whether it will.

        Only where learning will start from them: not where the trunk moves between sampling and
        learning, nor where they are computed anew with the log-probabilities. Only our own loop
        sees the states.
        """
        if self._behind or self.recomputes or not isinstance(self._engine, OwnEngine):
            return False
        self._engine.value_head = head
        return True

    def take(self, state: State) -> list[Episode]:
        """Return the responses of the round that begins."""
        if state.pending is not None:
            return state.pending
        self._engine.refresh(self._policy, state.iteration)
        return self._draw(state.iteration)

    def start(self, state: State) -> None:
        """One step behind: begin to draw the next round's responses, by the policy as it is."""
        following = state.iteration + 1
        if not self._behind or following >= self._config.iterations:
            return
        self._engine.refresh(self._policy, state.iteration)
        if self._thread is not None:
            self._future = self._thread.submit(self._draw, following)
        else:
            self._future = Future()
            self._future.set_result(self._draw(following))

    def try_out(self, state: State) -> list[Episode]:
        """Return what the policy as it is answers to the next round's prompts."""
        self._engine.refresh(self._policy, state.iteration)
        return self._draw(state.iteration)

    def finish(self, state: State) -> None:
        """Put what was begun where the next round, or a checkpoint, finds it."""
        state.pending = self._future.result() if self._future is not None else None
        self._future = None

    def _draw(self, iteration: int) -> list[Episode]:
        config = self._config
        asked = prompts_of_round(self._prompts, config.batch // config.group, iteration, self._seed)
        grouped = [prompt for prompt in asked for _ in range(config.group)]
        seeds = [derive(self._seed, "rollout", iteration, n) for n in range(config.batch)]
        return play(self._engine, self._policy, grouped, seeds, config, self._environment)


def prompts_of_round(
    prompts: Sequence[Conversation], count: int, iteration: int, seed: int
) -> list[Conversation]:
    """Return the prompts of one round: passes over all of them, each in an order of its own.

    A pass that ends in mid-round is followed by the next one at once, so that every prompt comes
    equally often.
    """
    size, first = len(prompts), iteration * count
    chosen: list[Conversation] = []
    for number in range(first // size, (first + count - 1) // size + 1):
        order = rng(seed, "prompts", number).sample(range(size), size)
        start, end = (min(max(place - number * size, 0), size) for place in (first, first + count))
        chosen += [prompts[row] for row in order[start:end]]
    return chosen
