"""Rewards, advantages and returns of sampled responses, as pure functions of tensors.

Shapes: ``B`` responses, ``R`` positions, padded on the right; a mask is True at real tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """How much better each token was than expected, and what was to be expected."""

    advantages: Tensor
    """[B, R], 0 at padding."""
    returns: Tensor
    """[B, R] the target of the value model, 0 at padding."""


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """Return the reward of each token: a KL penalty everywhere, the score at the last one.

    r_t = -beta kl_t + [t is last] score (Ziegler et al., 2019, eq. 2).

    ``scores`` [B] in reward units, ``kl`` [B, R] in nats, ``mask`` [B, R]; every response has at
    least one token. Returns [B, R], 0 at padding.
    """
    rewards = (-coefficient * kl).masked_fill(~mask, 0.0)
    last = mask.sum(1) - 1
    rows = torch.arange(len(scores), device=scores.device)
    return rewards.index_put((rows, last), scores, accumulate=True)


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float
) -> Advantages:
    """Return generalised advantage estimates (Schulman et al., 2016, eq. 16) and returns.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, where nothing
    follows the last token: the episode ends there. Returns are A_t + V_t.

    All tensors are [B, R]; ``values`` are those of the states before each token.
    """
    values = values.masked_fill(~mask, 0.0)
    rewards = rewards.masked_fill(~mask, 0.0)
    advantage = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(advantage)
    backwards = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = delta + gamma * lam * advantage
        # Behind the last token of a row all of these are 0, so its end needs no special case.
        advantage = advantage.masked_fill(~mask[:, t], 0.0)
        following = values[:, t]
        backwards.append(advantage)
    advantages = torch.stack(backwards[::-1], dim=1)
    return Advantages(advantages, (advantages + values).masked_fill(~mask, 0.0))
