"""From a scorer's scores to the rewards of responses, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rl.config import ShapingConfig


def shaped(scores: Tensor, finished: Tensor, config: ShapingConfig) -> Tensor:
    """Return the reward of each response, [B].

    In this order: whitened over the batch (if set), clipped, and then what was cut before it ended
    pays (``penalize``) or gets a fixed low reward (``replace``). ``scores`` [B], ``finished`` [B].
    """
    rewards = scores
    if config.whiten:
        rewards = (rewards - rewards.mean()) * (rewards.var() + 1e-8).rsqrt()
    if config.clip is not None:
        rewards = rewards.clamp(-config.clip, config.clip)
    if config.unfinished == "penalize":
        return rewards - config.penalty * (~finished)
    if config.unfinished == "replace":
        return torch.where(finished, rewards, -config.penalty)
    return rewards


def until(ids: Sequence[int], finished: bool, stop_ids: frozenset[int]) -> tuple[list[int], bool]:
    """Cut a response behind its first stop token; say whether it counts as finished.

    What was drawn after that token is no part of the response: it is not scored, and no loss sees
    it (Stiennon et al., 2020, cut summaries so at the first newline).
    """
    for place, token in enumerate(ids):
        if token in stop_ids:
            return list(ids[: place + 1]), True
    return list(ids), finished
