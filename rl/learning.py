"""Learning from one round: a few passes of policy and value steps."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.lm.batches import by_length
from plumbline.masked import masked_mean, masked_var, masked_whiten
from plumbline.seeds import derive
from rl.config import PPOConfig
from rl.guards import Guard, widened
from rl.kl import ESTIMATORS
from rl.losses import (
    PolicyLoss,
    cispo_loss,
    clipped_policy_loss,
    clipped_value_loss,
    gspo_loss,
    token_weights,
)
from rl.roles import Roles
from rl.rollouts import Rollout

if TYPE_CHECKING:
    from accelerate import Accelerator

    from plumbline.lm.logprobs import TokenLogprobs


class Learner:
    """Some weights and their optimiser."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], learning_rate: float, config: PPOConfig
    ) -> None:
        self.parameters = parameters
        self._learning_rate, self._config = learning_rate, config
        self.optimizer = torch.optim.AdamW(
            parameters.values(),
            lr=learning_rate,
            eps=config.adam_epsilon,
            weight_decay=0.0,
            fused=True,
        )

    def set_learning_rate(self, iteration: int) -> None:
        """Set the learning rate of a round."""
        left = 1 - iteration / self._config.iterations
        factor = left if self._config.schedule == "linear" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate * factor

    def clip(self) -> float:
        """Clip the gathered gradients; return their norm before."""
        return float(nn.utils.clip_grad_norm_(self.parameters.values(), self._config.max_grad_norm))

    def step(self) -> None:
        """Take one step along the gathered gradients."""
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Drop the gathered gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        return {"weights": self.parameters, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned."""
        for name, value in state["weights"].items():
            self.parameters[name].data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


class Figures:
    """Sums over the optimiser steps of a round, for means."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, value: Tensor | float, weight: float = 1.0) -> None:
        """Add a value with its weight in the mean."""
        self._sums[name] = self._sums.get(name, 0.0) + float(value) * weight
        self._counts[name] = self._counts.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """Return the weighted mean of each."""
        return {name: total / max(self._counts[name], 1e-12) for name, total in self._sums.items()}


def learn(
    roles: Roles,
    learners: dict[str, Learner],
    rollout: Rollout,
    config: PPOConfig,
    accelerator: Accelerator,
    guard: Guard,
    *,
    iteration: int,
    kl_coefficient: float,
    seed: int,
) -> dict[str, float]:
    """Improve policy and value on one round's responses; return the round's figures."""
    figures = Figures()
    mask = rollout.mask
    if int(mask.sum()) < 2:
        return {"skipped": 1.0, "steps": 0.0}  # every response was rejected
    if config.advantage.whitens:
        rollout = rollout._replace(advantages=masked_whiten(rollout.advantages, mask))
    moving = {
        name: learner
        for name, learner in learners.items()
        if name == "value" or not config.has_values or iteration >= config.value.warm_up
    }
    for learner in learners.values():
        learner.set_learning_rate(iteration)
    # The guard looks before each step at what those before it did. A round of one step would be
    # blind, so that it is looked at behind it and can be taken back.
    single = config.epochs * (config.batch // config.minibatch) == 1
    taken = 0
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(derive(seed, "order", iteration, epoch))
        order = torch.randperm(config.batch, generator=generator).to(mask.device)
        for start in range(0, config.batch, config.minibatch):
            rows = order[start : start + config.minibatch]
            if not bool(mask[rows].any()):
                continue  # all rejected; a step would follow the optimiser's momentum alone
            loss, change = _accumulate(
                roles, rollout.rows(rows), config, accelerator, figures, moving, kl_coefficient
            )
            norms = {name: learner.clip() for name, learner in moving.items()}
            numbers = {"loss": loss, **{f"{name} gradient": n for name, n in norms.items()}}
            skipped = guard.stops(rollout, change, numbers, rows, iteration)
            kept = None
            if single and guard.limits_change:
                kept = {name: deepcopy(learner.state()) for name, learner in moving.items()}
            for name, learner in learners.items():
                if skipped or name not in moving:
                    learner.forget()
                else:
                    learner.step()
                    figures.add(f"{name}_grad_norm", norms[name])
            if kept is not None and not skipped:
                some = rows[: config.micro_batch]
                change = _change(roles, rollout.rows(some), config)
                skipped = guard.stops(rollout, change, {}, some, iteration)
                if skipped:
                    for name, learner in moving.items():
                        learner.restore(kept[name])
            figures.add("skipped", float(skipped))
            taken += not skipped
    if config.has_values:
        error = rollout.returns - rollout.values
        variance = masked_var(rollout.returns, mask)
        figures.add("explained_variance", 1 - masked_var(error, mask) / (variance + 1e-8))
    return figures.means() | {"steps": float(taken)}


@torch.no_grad()
def _change(roles: Roles, part: Rollout, config: PPOConfig) -> Tensor:
    """Return how far each log-probability of some responses has moved, [B, R]."""
    said = roles.policy.logprobs(part.batch, config.sampling.temperature)
    return said.logprobs - part.logprobs


def _accumulate(
    roles: Roles,
    minibatch: Rollout,
    config: PPOConfig,
    accelerator: Accelerator,
    figures: Figures,
    moving: dict[str, Learner],
    kl_coefficient: float,
) -> tuple[float, Tensor]:
    """Add a minibatch's gradients, a micro-batch at a time.

    Each token's weight in the loss is settled for the whole minibatch before it is cut, so the cut
    changes nothing. Returns the policy's loss, and [B, R] how far each log-probability moved.
    """
    mask = minibatch.mask
    weights = token_weights(mask, config.reduction, config.sampling.max_new_tokens)
    value_weights = token_weights(mask, "token_mean", 1)
    total, changes = 0.0, []
    for rows in by_length(minibatch.batch.lengths, config.micro_batch):
        now = minibatch.rows(rows).trimmed()
        width = now.mask.shape[1]
        weight, value_weight = weights[rows, :width], value_weights[rows, :width]
        temperature, bonus = config.sampling.temperature, config.loss.entropy

        # The policy: its surrogate, the KL penalty where it is paid here, the entropy bonus.
        values = None
        if roles.shares_trunk:
            said, values = roles.logprobs_and_values(
                now.batch, temperature, entropy_gradient=bonus > 0
            )
        else:
            with torch.set_grad_enabled("policy" in moving):
                said = roles.policy.logprobs(now.batch, temperature, entropy_gradient=bonus > 0)
        policy = surrogate(said.logprobs, now, config)
        per_token = policy.loss * now.correction
        if config.kl_in_loss:
            penalty = ESTIMATORS[config.kl_estimator](said.logprobs, now.reference)
            per_token = per_token + kl_coefficient * penalty
        if bonus > 0:
            per_token = per_token - bonus * said.entropy
        loss = (per_token.masked_fill(~now.mask, 0.0) * weight).sum()

        # The value model: on its own weights, or on the policy's in the same pass.
        value = None
        if config.has_values:
            if values is None:
                if "policy" in moving:
                    accelerator.backward(loss)  # before the next pass, which needs the memory
                values = roles.values(now.batch)
            value = clipped_value_loss(values, now.values, now.returns, config.value.clip)
            value_loss = (value.loss.masked_fill(~now.mask, 0.0) * value_weight).sum()
            if roles.shares_trunk:
                accelerator.backward(loss + config.value.coefficient * value_loss)
            else:
                accelerator.backward(value_loss)
            share = float(value_weight.sum())
            figures.add("value_loss", masked_mean(value.loss.detach(), now.mask), share)
            figures.add("value_clip_fraction", masked_mean(value.clipped.float(), now.mask), share)
        else:
            accelerator.backward(loss)

        total += float(loss.detach())
        changes.append((rows, (said.logprobs - now.logprobs).detach()))
        _note(figures, said, policy, now, float(value_weight.sum()))
    figures.add("policy_loss", total)
    return total, widened(changes, len(mask), mask.shape[1])


def surrogate(logprobs: Tensor, now: Rollout, config: PPOConfig) -> PolicyLoss:
    """Return the loss of each token that the config asks for."""
    how = config.loss
    given = (logprobs, now.logprobs, now.advantages)
    if how.kind == "cispo":
        return cispo_loss(*given, how.clip_low, how.clip_above)
    if how.kind == "gspo":
        return gspo_loss(*given, now.mask, how.clip_low, how.clip_above)
    return clipped_policy_loss(*given, how.clip_low, how.clip_above, how.dual_clip)


@torch.no_grad()
def _note(
    figures: Figures, said: TokenLogprobs, policy: PolicyLoss, now: Rollout, share: float
) -> None:
    """Add what a part of a minibatch shows; ``share`` is its share of the minibatch's tokens."""
    change = said.logprobs - now.logprobs
    for name, tensor in (
        ("clip_fraction", policy.clipped),
        ("ratio", policy.ratio),
        ("update_kl", change.exp() - 1 - change),  # k3: KL(old || new), never negative
        ("entropy", said.entropy),
    ):
        figures.add(name, masked_mean(tensor.float(), now.mask), share)
