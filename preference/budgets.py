"""What ends a training with a scorer in the loop: its rounds, its tokens, or how far it has gone.

Costs are counted to the token, so that methods can be compared at equal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from plumbline.lm.precision import compute_precision
from plumbline.lm.sharding import gathered
from plumbline.training.milestones import milestones
from preference.config import OnlineConfig
from preference.reference import PolicyAndReference
from preference.rounds import Round


class Progress(NamedTuple):
    """How much of a training is done: rounds, or tokens where these are limited."""

    done: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done / self.total


def progress_of(config: OnlineConfig, rounds: int, tokens_sampled: int) -> Progress:
    """Return how much of a training is done after some rounds with so many tokens sampled."""
    if config.max_sampled_tokens is None:
        return Progress(rounds, config.rounds)
    return Progress(tokens_sampled, config.max_sampled_tokens)


class EvaluationTimes:
    """When the policy is evaluated: before training, and ``evaluations`` times on the way."""

    def __init__(self, config: OnlineConfig) -> None:
        self._count = config.evaluations
        by_tokens = config.max_sampled_tokens is not None
        self._rounds = None if by_tokens else milestones(config.rounds, config.evaluations)
        self._reached = -1

    def start_at(self, progress: Progress) -> None:
        """Take what is reached already as evaluated: a training resumes here."""
        self._reached = self._parts(progress)

    def is_due(self, number: int, progress: Progress) -> bool:
        """Return whether the policy is evaluated after a round.

        Where tokens are limited, that is after the first round that reaches each equal part.
        """
        if self._count == 0:
            return False
        if self._rounds is not None:
            return number in self._rounds
        before, self._reached = self._reached, self._parts(progress)
        return self._reached > before

    def _parts(self, progress: Progress) -> int:
        return progress.done * self._count // progress.total


class CanRollBack(Protocol):
    """A training whose policy can be what it was."""

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the policy's weights, with its rounds and steps."""
        ...

    def rollback(self, snapshot: dict[str, Any]) -> None:
        """Restore what `snapshot` returned."""
        ...


class KLBudget:
    """Compares the KL of each round's responses with ``max_kl``; without one, never ends any."""

    def __init__(
        self, config: OnlineConfig, roles: PolicyAndReference, say: Callable[[str], None]
    ) -> None:
        self._config, self._roles, self._say = config, roles, say
        self._last_within: dict[str, Any] | None = None

    def kl_of(self, sampled: Round) -> float | None:
        """Return the KL of a round's responses from the policy's start, nats per response.

        k1, summed over each response. None where nothing limits it, so that nothing is computed.
        """
        if self._config.max_kl is None:
            return None
        roles, temperature = self._roles, self._config.sampling.temperature
        precision = compute_precision(self._config.precision, roles.model.device)
        with torch.no_grad(), precision, gathered(roles.model, roles.start.model):
            policy, start = (
                role.logprobs_of(sampled.prompt_ids, sampled.response_ids, temperature)
                for role in (roles.policy, roles.start)
            )
        return float((policy - start).sum(1).mean())

    def ends_training(self, training: CanRollBack, rounds: int, kl: float | None) -> bool:
        """Return whether the policy that drew a round's responses is beyond the budget.

        If so it is rolled back to the last one that was within; if not, this one is remembered.
        """
        most = self._config.max_kl
        if most is None or kl is None:
            return False
        if kl <= most:
            self._last_within = training.snapshot()
            return False
        self._say(
            f"After {rounds} rounds the policy is {kl:.2f} nats from its start, beyond max_kl "
            f"({most:g}); training ends with the last policy that was within."
        )
        if self._last_within is not None:
            training.rollback(self._last_within)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {"last_within": self._last_within}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._last_within = state["last_within"]
