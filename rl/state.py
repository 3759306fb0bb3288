"""What changes while a policy trains: weights, optimisers, and counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.precision import compute_precision
from plumbline.lm.sharding import copy_of, gathered
from plumbline.runs.processes import share_of, tensors_of_all
from plumbline.training.sharding import assign, prepared
from rl.config import PPOConfig
from rl.episodes import Episode
from rl.kl import response_kl
from rl.learner import Learner
from rl.roles import Roles
from rl.rollouts import collate_episodes, logprobs_of

_COUNTS = (
    "iteration", "kl_coefficient", "steps", "tokens_sampled", "tokens_scored", "tokens_seen",
)  # fmt: skip


class TrainingState:
    """The roles with an optimiser for each that learns, and how far they have come."""

    def __init__(self, roles: Roles, config: PPOConfig) -> None:
        self.roles, self.config = roles, config
        self.learners = {"policy": Learner(roles.policy_parameters, config.learning_rate, config)}
        if config.has_values:
            rate = config.value.learning_rate
            self.learners["value"] = Learner(roles.value_parameters, rate, config)
        self.iteration = 0
        """Rounds that were learnt from."""
        self.kl_coefficient = config.kl.coefficient
        self.steps = 0
        """Optimiser steps that were taken."""
        self.tokens_sampled = 0
        self.tokens_scored = 0
        """Tokens that the scorer read, prompts included, in the policy's tokens."""
        self.tokens_seen = 0
        """Tokens that passed through a model in training steps, prompts included."""

    def backward(self, loss: Tensor, *roles: str) -> None:
        """Add the gradients of a loss of these roles, policy or value."""
        loss = prepared(loss, *(self.learners[role].optimizer for role in roles))
        torch.autograd.backward(loss)

    @property
    def trainable(self) -> dict[str, Learner]:
        """What learns in this round: in a warm-up the value model alone."""
        if self.config.has_values and self.iteration < self.config.value.warm_up:
            return {"value": self.learners["value"]}
        return self.learners

    def precision(self) -> AbstractContextManager[None]:
        """Return the number format in which the roles compute, as a context."""
        return compute_precision(self.config.precision, self.roles.model.device)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the roles read, in their number format, with the policy's weights gathered."""
        with self.precision(), gathered(self.roles.model):
            yield

    def copy_of_trainable(self) -> Callable[[], None]:
        """Copy what learns, with its optimisers; return a function that restores the copy."""
        states = {name: learner.copy_of_state() for name, learner in self.trainable.items()}

        def restore() -> None:
            for name, state in states.items():
                self.learners[name].load_state_dict(state)

        return restore

    @torch.no_grad()
    def kl_of(self, episodes: Sequence[Episode], *, recompute: bool) -> Tensor:
        """Return the KL to the reference of each response that the policy drew, [B], in nats."""
        with self.reading():
            roles, config = self.roles, self.config
            share = episodes[share_of(len(episodes))]
            batch, sampled_logprobs = collate_episodes(share, roles.policy)
            logprobs = logprobs_of(roles.policy, batch, config) if recompute else sampled_logprobs
            reference_logprobs = logprobs_of(roles.reference, batch, config)
            mask = batch.response_mask.to(logprobs.device)
            return tensors_of_all([response_kl(logprobs, reference_logprobs, mask)])[0]

    def zero_grad(self) -> None:
        """Drop all accumulated gradients."""
        for learner in self.learners.values():
            learner.zero_grad()

    def totals(self) -> dict[str, float]:
        """Return what the whole training came to."""
        return {
            "kl_coefficient": self.kl_coefficient,
            "rounds": float(self.iteration),
            "responses": float(self.iteration * self.config.batch_size),
            "tokens_sampled": float(self.tokens_sampled),
            "tokens_scored": float(self.tokens_scored),
            "tokens_seen": float(self.tokens_seen),
            "steps": float(self.steps),
        }

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of the policy's weights, with its rounds and steps."""
        weights = self.learners["policy"].parameters
        return {
            "weights": {name: copy_of(weight) for name, weight in weights.items()},
            "iteration": self.iteration,
            "steps": self.steps,
        }

    def rollback(self, snapshot: dict[str, Any]) -> None:
        """Restore what `snapshot` returned."""
        assign(self.learners["policy"].parameters, snapshot["weights"])
        self.iteration, self.steps = int(snapshot["iteration"]), int(snapshot["steps"])

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {
            "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
            "reference": self.roles.reference_parameters if self.roles.moving_reference else {},
            "counts": {name: getattr(self, name) for name in _COUNTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        for name, weight in state["reference"].items():
            self.roles.reference_parameters[name].data.copy_(weight)
        for name, count in state["counts"].items():
            setattr(self, name, count)
