"""Learning from one round: a few passes of clipped policy and value steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.batches import by_length
from plumbline.masked import masked_mean, masked_var, masked_whiten
from plumbline.seeds import derive
from rl.config import PPOConfig
from rl.losses import clipped_policy_loss, clipped_value_loss
from rl.roles import Roles
from rl.rollouts import Rollout

if TYPE_CHECKING:
    from accelerate import Accelerator


class Learner:
    """Some weights and their optimiser."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], learning_rate: float, config: PPOConfig
    ) -> None:
        self.parameters = parameters
        self._learning_rate, self._config = learning_rate, config
        self.optimizer = torch.optim.AdamW(
            parameters.values(), lr=learning_rate, eps=config.adam_epsilon, weight_decay=0.0
        )

    def set_learning_rate(self, iteration: int) -> None:
        """Set the learning rate of a round."""
        left = 1 - iteration / self._config.iterations
        factor = left if self._config.schedule == "linear" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate * factor

    def step(self) -> float:
        """Take one step along the gathered gradients; return their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self._config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {"weights": self.parameters, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        for name, value in state["weights"].items():
            self.parameters[name].data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


class _Figures:
    """Sums over the optimiser steps of a round, for means."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, value: Tensor | float, weight: float = 1.0) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(value) * weight
        self._counts[name] = self._counts.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        return {name: total / self._counts[name] for name, total in self._sums.items()}


def learn(
    roles: Roles,
    learners: tuple[Learner, Learner],
    rollout: Rollout,
    config: PPOConfig,
    accelerator: Accelerator,
    iteration: int,
    seed: int,
) -> dict[str, float]:
    """Improve policy and value on one round's responses; return the round's figures."""
    mask = rollout.batch.response_mask
    if config.whiten_advantages:
        rollout = rollout._replace(advantages=masked_whiten(rollout.advantages, mask))
    for learner in learners:
        learner.set_learning_rate(iteration)
    figures = _Figures()
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(derive(seed, "order", iteration, epoch))
        order = torch.randperm(config.batch, generator=generator).to(mask.device)
        for start in range(0, config.batch, config.minibatch):
            rows = order[start : start + config.minibatch]
            _accumulate(roles, rollout.rows(rows), config, accelerator, figures)
            for name, learner in zip(("policy", "value"), learners, strict=True):
                figures.add(f"{name}_grad_norm", learner.step())
    error = rollout.returns - rollout.values
    variance = masked_var(rollout.returns, mask)
    figures.add("explained_variance", 1 - masked_var(error, mask) / (variance + 1e-8))
    return figures.means()


def _accumulate(
    roles: Roles,
    minibatch: Rollout,
    config: PPOConfig,
    accelerator: Accelerator,
    figures: _Figures,
) -> None:
    """Add a minibatch's gradients, a micro-batch at a time.

    The loss is the mean over the tokens of the whole minibatch, however it is cut: each part is
    summed and divided by the minibatch's number of tokens, not by its own.
    """
    tokens = minibatch.batch.response_mask.sum()
    for rows in by_length(minibatch.batch.lengths, config.micro_batch):
        now = minibatch.rows(rows).trimmed()
        mask, weight = now.batch.response_mask, float(now.batch.response_mask.sum() / tokens)

        said = roles.policy.logprobs(now.batch, config.sampling.temperature)
        policy = clipped_policy_loss(said.logprobs, now.logprobs, now.advantages, config.clip)
        accelerator.backward(policy.loss.masked_fill(~mask, 0.0).sum() / tokens)

        values = roles.values(now.batch)
        value = clipped_value_loss(values, now.values, now.returns, config.value_clip)
        accelerator.backward(value.loss.masked_fill(~mask, 0.0).sum() / tokens)

        with torch.no_grad():
            change = said.logprobs - now.logprobs
            for name, tensor in (
                ("policy_loss", policy.loss),
                ("value_loss", value.loss),
                ("clip_fraction", policy.clipped),
                ("value_clip_fraction", value.clipped),
                ("ratio", policy.ratio),
                ("update_kl", change.exp() - 1 - change),  # k3: KL(old || new), never negative
                ("entropy", said.entropy),
            ):
                figures.add(name, masked_mean(tensor.float(), mask), weight)
