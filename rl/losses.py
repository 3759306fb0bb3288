"""The losses of PPO and its relatives, as pure functions of tensors.

Each returns the loss of every token, and the caller reduces: what to average over is a choice of
its own, made by one of `REDUCTIONS`. Shapes: ``B`` responses, ``R`` positions; a mask is True at
the tokens that the loss is about. Off the mask the results mean nothing.

`POLICY_LOSSES` at the end has one row for each ``loss.kind``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plumbline.errors import ModelError
from plumbline.masked import masked_mean
from plumbline.tables import Table


class Clip(NamedTuple):
    """How far the ratio of new to old probability counts."""

    low: float
    """Below 1 - low it is clipped."""
    high: float
    """And above 1 + high."""
    dual: float | None = None
    """Most that a token with a negative advantage may cost, in advantages."""


class PolicyLoss(NamedTuple):
    """The surrogate, token by token."""

    loss: Tensor
    """[B, R] to be minimised."""
    ratio: Tensor
    """[B, R] new over old probability, of each token or (GSPO) of its whole response."""
    clipped: Tensor
    """[B, R] True where the clip took effect."""


class ValueLoss(NamedTuple):
    """The clipped squared error, token by token."""

    loss: Tensor
    """[B, R] to be minimised."""
    clipped: Tensor
    """[B, R] True where the clip took effect."""


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: Clip
) -> PolicyLoss:
    """Return -min(rho A, clip(rho, 1 - c_low, 1 + c_high) A) (Schulman et al., 2017, eq. 7).

    rho = exp(log p_new - log p_old). A larger ``clip.high`` is the clip-higher of DAPO (Yu et al.,
    2025, eq. 10). With ``clip.dual`` d > 1 the loss of a token with A < 0 is -d A at most (Ye et
    al., 2020, eq. 5): without it, a bad token that became much likelier pulls without limit.
    All tensors are [B, R].
    """
    ratio = (logprobs - old_logprobs).exp()
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip.low, 1 + clip.high) * advantages
    gain, clipped = torch.minimum(plain, bounded), bounded < plain
    if clip.dual is not None:
        floor = clip.dual * advantages
        too_low = (advantages < 0) & (gain < floor)
        gain, clipped = torch.where(too_low, floor, gain), clipped | too_low
    return PolicyLoss(-gain, ratio, clipped)


def cispo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: Clip
) -> PolicyLoss:
    """Return -sg[clip(rho, 1 - c_low, 1 + c_high)] A log p_new (MiniMax, 2025, eq. 4 and 5).

    The importance weight is clipped and held constant (sg), so that every token keeps a gradient;
    PPO's clip leaves tokens beyond it without one. All tensors are [B, R].
    """
    ratio = (logprobs - old_logprobs).exp()
    weight = ratio.clamp(1 - clip.low, 1 + clip.high).detach()
    return PolicyLoss(-weight * advantages * logprobs, ratio, weight != ratio)


def gspo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: Clip
) -> PolicyLoss:
    """Return the clipped surrogate with one ratio per response (GSPO; Zheng et al., 2025, eq. 5-7).

    s = exp(mean_t (log p_new - log p_old)) over the mask, the same at each of a response's tokens,
    so that a mean over these is the response's loss. Clips are much narrower than PPO's (the paper
    has 3e-4 and 4e-4): a mean over tokens moves little. All tensors are [B, R].
    """
    mean = masked_mean(logprobs - old_logprobs, mask, dim=1)
    ratio = mean.exp().unsqueeze(1).expand_as(logprobs)
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip.low, 1 + clip.high) * advantages
    return PolicyLoss(-torch.minimum(plain, bounded), ratio, bounded < plain)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None
) -> ValueLoss:
    """Return 0.5 max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2).

    The form of the original implementation, with which PPO's published results were obtained
    (Huang et al., 2022, detail 9). ``clip=None`` is the plain 0.5 (V - G)^2. All tensors are
    [B, R].
    """
    plain = (values - returns).square()
    if clip is None:
        return ValueLoss(0.5 * plain, torch.zeros_like(plain, dtype=torch.bool))
    bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    return ValueLoss(0.5 * torch.maximum(plain, bounded), bounded > plain)


def truncated_weights(logprobs: Tensor, behavior_logprobs: Tensor, cap: float) -> Tensor:
    """Return min(p_old / p_behaviour, cap) of each token, [B, R], without a gradient.

    Corrects for responses that other weights, or other arithmetic, drew than those that learning
    starts from: a policy one step behind (the decoupled objective of Hilton et al., 2021, eq. 8,
    with the weights truncated as by Espeholt et al., 2018), or an engine of other precision (Yao
    et al., 2025). Both tensors are [B, R].
    """
    return (logprobs - behavior_logprobs).exp().clamp(max=cap).detach()


# --- What losses are averaged over. -------------------------------------------------------------

# Weights are made once for a minibatch; however it is then cut for the passes through the model,
# the sum of weighted losses is the same.


def token_mean(mask: Tensor, length: int = 1) -> Tensor:
    """Return 1 / (tokens of all responses) as the weight of each token, [B, R], 0 off the mask.

    Long responses weigh more (DAPO, eq. 12). ``length`` has no effect.
    """
    weights = mask.float()
    return weights / weights.sum().clamp(min=1)


def sequence_mean(mask: Tensor, length: int = 1) -> Tensor:
    """Return 1 / (B * tokens of its response) as the weight of each token, [B, R], 0 off the mask.

    Each response weighs the same (GRPO). ``length`` has no effect.
    """
    weights = mask.float()
    return weights / weights.sum(1, keepdim=True).clamp(min=1) / len(mask)


def fixed_length(mask: Tensor, length: int) -> Tensor:
    """Return 1 / (B * ``length``) as the weight of each token, [B, R], 0 off the mask.

    The same for every token at any lengths; Dr. GRPO takes the most tokens that a response
    may have, so that no length is favoured.
    """
    return mask.float() / (len(mask) * length)


@dataclass(frozen=True)
class Reduction:
    """One way to average the losses of tokens."""

    name: str
    weights: Callable[[Tensor, int], Tensor]
    """From the mask [B, R] of a minibatch and the most tokens of a turn, to weights [B, R]."""


REDUCTIONS = Table(
    "reduction",
    [
        Reduction("token_mean", token_mean),
        Reduction("sequence_mean", sequence_mean),
        Reduction("fixed_length", fixed_length),
    ],
    renamed={"constant": "fixed_length"},
)


# --- The table of policy losses. ----------------------------------------------------------------


@dataclass(frozen=True)
class PolicyObjective:
    """One loss of the policy, and what the published algorithm does with it.

    For a loss of your own, set ``loss.kind`` to the dotted path of a function with the signature of
    `clipped_policy_loss`, or of a `PolicyObjective` that holds one.
    """

    name: str
    function: Callable[[Tensor, Tensor, Tensor, Tensor, Clip], PolicyLoss]
    has_dual_clip: bool = False
    """Whether it reads ``clip.dual``."""
    reduction: str = "token_mean"
    """What it is averaged over, where neither ``loss.reduction`` nor the estimator says."""

    def __call__(
        self, logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, clip: Clip
    ) -> PolicyLoss:
        """Return the loss of each token, [B, R]."""
        loss = self.function(logprobs, old_logprobs, advantages, mask, clip)
        if not isinstance(loss, PolicyLoss) or any(part.shape != mask.shape for part in loss):
            raise ModelError(
                f"loss.kind is {self.name}, which returned {type(loss).__name__}. It must return "
                f"rl.losses.PolicyLoss, three tensors of shape {tuple(mask.shape)}: one number per "
                "token, which is averaged elsewhere."
            )
        return loss


def _from_function(name: str, function: Callable[..., Any]) -> PolicyObjective:
    if isinstance(function, PolicyObjective):
        return replace(function, name=name)
    return PolicyObjective(name, function, has_dual_clip=True)


POLICY_LOSSES = Table(
    "policy loss",
    [
        PolicyObjective("clip", clipped_policy_loss, has_dual_clip=True),
        PolicyObjective("cispo", cispo_loss),
        PolicyObjective("gspo", gspo_loss, reduction="sequence_mean"),
    ],
    from_function=_from_function,
)
