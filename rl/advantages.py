"""Rewards, advantages and returns of sampled responses, as pure functions of tensors.

`ADVANTAGE_ESTIMATORS` at the end has one row for each ``advantage.estimator``.

Shapes: ``B`` responses, ``R`` positions, padded on the right; a mask is True at the policy's own
tokens. In dialogues with an environment it has holes, where the environment spoke: these count as
part of the step before them. Where several responses answer one prompt, its ``G`` rows follow each
other, and ``B`` is a multiple of ``G``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from plumbline.errors import ModelError
from plumbline.masked import last_position
from plumbline.tables import Table


class Advantages(NamedTuple):
    """How much better each token was than expected, and what was to be expected."""

    advantages: Tensor
    """[B, R], 0 off the mask."""
    returns: Tensor
    """[B, R] the target of the value model, 0 off the mask."""


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return the reward of each token: a KL penalty everywhere, the score at the last one.

    r_t = -beta kl_t + [t is last] score (Ziegler et al., 2019, eq. 2).

    ``scores`` [B] in reward units, ``kl`` [B, R] in nats, ``mask`` [B, R]; every response has at
    least one token. Returns [B, R], 0 off the mask.
    """
    rewards = (-coefficient * kl).masked_fill(~mask, 0.0)
    rows = torch.arange(len(scores), device=scores.device)
    return rewards.index_put((rows, last_position(mask)), scores, accumulate=True)


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> Advantages:
    """Return generalised advantage estimates (Schulman et al., 2016, eq. 16) and returns.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, where t counts the
    policy's tokens and nothing follows the last: the episode ends there. Returns are A_t + V_t.

    All tensors are [B, R]; ``values`` are those of the states before each token.
    """
    values = values.masked_fill(~mask, 0.0)
    rewards = rewards.masked_fill(~mask, 0.0)
    advantage = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(advantage)
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        ours = mask[:, t]
        delta = rewards[:, t] + gamma * following - values[:, t]
        # Off the mask nothing happens: what lies beyond a hole follows what lies before it, and
        # behind the last token of a row all is 0 anyway.
        advantage = torch.where(ours, delta + gamma * lam * advantage, advantage)
        following = torch.where(ours, values[:, t], following)
        backwards.append(advantage)
    advantages = torch.stack(backwards[::-1], dim=1).masked_fill(~mask, 0.0)
    return Advantages(advantages, (advantages + values).masked_fill(~mask, 0.0))


def returns_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Return sum_{k >= t} gamma^(k - t) r_k, where t and k count the policy's tokens.

    The advantages of REINFORCE++ (Hu et al., 2025, eq. 5) before they are whitened over the batch:
    no value model, and no baseline but the batch's mean. Both tensors and the result are [B, R].
    """
    values = torch.zeros_like(rewards)
    return generalized_advantages(rewards, values, mask, gamma, 1.0).advantages


def leave_one_out(rewards: Tensor, group: int) -> Tensor:
    """Return r_i - mean_{j != i} r_j within each group (RLOO; Kool et al., 2019).

    Ahmadian et al. (2024, eq. 8) for language models. ``rewards`` [B], of whole responses; B must
    be a multiple of ``group``, which must be 2 or more. Returns [B].
    """
    return group_centered(rewards, group) * (group / (group - 1))


def group_centered(rewards: Tensor, group: int) -> Tensor:
    """Return r_i - mean_j r_j within each group, [B].

    The advantages of Dr. GRPO (Liu et al., 2025, section 3.2): GRPO's without its division by the
    standard deviation, which favours prompts that are nearly always or nearly never answered well.
    """
    grouped = rewards.view(-1, group)
    return (grouped - grouped.mean(1, keepdim=True)).flatten()


def group_standardized(rewards: Tensor, group: int, epsilon: float = 1e-4) -> Tensor:
    """Return (r_i - mean_j r_j) / (std_j r_j + epsilon) within each group, [B].

    The advantages of GRPO (Shao et al., 2024, section 4.1.2). The standard deviation has Bessel's
    correction; a group of equal rewards gets 0.
    """
    std = rewards.view(-1, group).std(1, keepdim=True)
    return (group_centered(rewards, group).view(-1, group) / (std + epsilon)).flatten()


def broadcast_to_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Give every token of a response the response's value: [B] to [B, R], 0 off the mask."""
    return values.unsqueeze(1).expand(mask.shape).masked_fill(~mask, 0.0)


# --- The table of estimators. -------------------------------------------------------------------


class EstimatorSettings(NamedTuple):
    """What an estimator may read beside its tensors."""

    gamma: float
    """Discount of later rewards."""
    lam: float
    """Lambda of generalised advantage estimation."""
    group_size: int
    """G, the number of responses to each prompt."""


Estimate = Callable[[Tensor, Tensor, Tensor, EstimatorSettings], Advantages]
"""From token rewards [B, R], values [B, R] (0 without a value model) and the mask [B, R]."""


@dataclass(frozen=True)
class AdvantageEstimator:
    """One way to estimate advantages, and what the published algorithm does with it.

    For an estimator of your own, set ``advantage.estimator`` to the dotted path of a function like
    `Estimate`, or of an `AdvantageEstimator` that holds one, where it needs more than the defaults.
    """

    name: str
    function: Estimate
    grouped: bool = False
    """Whether it compares a response with others to the same prompt."""
    has_values: bool = False
    """Whether it needs a value model."""
    reads: frozenset[str] = frozenset()
    """Which of ``gamma`` and ``lam`` it reads."""
    whitens: bool = False
    """Whether advantages are whitened over the round where ``advantage.whiten`` is null."""
    kl_applies_to: Literal["reward", "loss"] = "reward"
    """Where the KL penalty is paid where ``kl.apply_to`` is null."""
    reduction: str | None = None
    """What the loss is averaged over where ``loss.reduction`` is null. None: as the loss has it."""

    def __call__(
        self, rewards: Tensor, values: Tensor, mask: Tensor, settings: EstimatorSettings
    ) -> Advantages:
        """Return advantages and returns [B, R] of token rewards [B, R]."""
        estimate = self.function(rewards, values, mask, settings)
        if not isinstance(estimate, Advantages) or any(t.shape != mask.shape for t in estimate):
            raise ModelError(
                f"advantage.estimator is {self.name}, which returned {_described(estimate)}. It "
                f"must return rl.advantages.Advantages, two tensors of shape {tuple(mask.shape)}."
            )
        return estimate


def _described(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
        shapes = ", ".join(str(tuple(part.shape)) for part in value)
        return f"{type(value).__name__} of tensors of shape {shapes}"
    return type(value).__name__


def _gae(rewards: Tensor, values: Tensor, mask: Tensor, settings: EstimatorSettings) -> Advantages:
    return generalized_advantages(rewards, values, mask, settings.gamma, settings.lam)


def _reinforce(
    rewards: Tensor, values: Tensor, mask: Tensor, settings: EstimatorSettings
) -> Advantages:
    return Advantages(returns_to_go(rewards, mask, settings.gamma), torch.zeros_like(rewards))


def _of_responses(estimate: Callable[[Tensor, int], Tensor]) -> Estimate:
    """Return the estimator that gives each token its response's advantage, [B] from rewards [B]."""

    def function(
        rewards: Tensor, values: Tensor, mask: Tensor, settings: EstimatorSettings
    ) -> Advantages:
        advantages = estimate(rewards.sum(1), settings.group_size)
        return Advantages(broadcast_to_tokens(advantages, mask), torch.zeros_like(rewards))

    return function


def _from_function(name: str, function: Callable[..., Any]) -> AdvantageEstimator:
    if isinstance(function, AdvantageEstimator):
        return replace(function, name=name)
    return AdvantageEstimator(name, function, reads=frozenset(("gamma", "lam")))


ADVANTAGE_ESTIMATORS = Table(
    "advantage estimator",
    [
        AdvantageEstimator(
            "gae", _gae, has_values=True, reads=frozenset(("gamma", "lam")), whitens=True
        ),
        AdvantageEstimator("rloo", _of_responses(leave_one_out), grouped=True),
        AdvantageEstimator(
            "grpo",
            _of_responses(group_standardized),
            grouped=True,
            kl_applies_to="loss",
            reduction="sequence_mean",
        ),
        AdvantageEstimator(
            "dr_grpo",
            _of_responses(group_centered),
            grouped=True,
            kl_applies_to="loss",
            reduction="fixed_length",
        ),
        AdvantageEstimator(
            "group_mean", _of_responses(group_centered), grouped=True, kl_applies_to="loss"
        ),
        AdvantageEstimator("reinforce_pp", _reinforce, reads=frozenset(("gamma",)), whitens=True),
    ],
    from_function=_from_function,
)
