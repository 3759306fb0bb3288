"""The losses of PPO, as pure functions of tensors.

Each returns the loss of every token, and the caller reduces: what to average over is a choice of
its own. Shapes: ``B`` responses, ``R`` positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """The clipped surrogate, token by token."""

    loss: Tensor
    """[B, R] to be minimised."""
    ratio: Tensor
    """[B, R] new over old probability of each token."""
    clipped: Tensor
    """[B, R] True where the clip took effect."""


class ValueLoss(NamedTuple):
    """The clipped squared error, token by token."""

    loss: Tensor
    """[B, R] to be minimised."""
    clipped: Tensor
    """[B, R] True where the clip took effect."""


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip: float
) -> PolicyLoss:
    """Return -min(rho A, clip(rho, 1 - c, 1 + c) A) (Schulman et al., 2017, eq. 7).

    rho = exp(log p_new - log p_old). All tensors are [B, R].
    """
    ratio = (logprobs - old_logprobs).exp()
    plain = ratio * advantages
    bounded = ratio.clamp(1 - clip, 1 + clip) * advantages
    return PolicyLoss(-torch.minimum(plain, bounded), ratio, bounded < plain)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, clip: float
) -> ValueLoss:
    """Return 0.5 max((V - G)^2, (V_old + clip(V - V_old, -c, c) - G)^2).

    The form of the original implementation, with which PPO's published results were obtained
    (Huang et al., 2022, detail 9). All tensors are [B, R].
    """
    plain = (values - returns).square()
    bounded = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    return ValueLoss(0.5 * torch.maximum(plain, bounded), bounded > plain)
