"""From a scorer's scores to the rewards of responses, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plumbline.tables import Table

if TYPE_CHECKING:
    from rl.config import ShapingConfig


@dataclass(frozen=True)
class MissingEOS:
    """What becomes of a response that was cut before its end token."""

    name: str
    rewards: Callable[[Tensor, Tensor, float], Tensor] = lambda rewards, finished, penalty: rewards
    """From rewards [B], which responses came to their end [B], and the penalty, to rewards [B]."""
    has_penalty: bool = False
    """Whether it reads ``missing_eos_penalty``."""
    rejects: bool = False
    """Whether a cut response leaves the loss."""


def _penalize(rewards: Tensor, finished: Tensor, penalty: float) -> Tensor:
    return rewards - penalty * (~finished)


def _replace(rewards: Tensor, finished: Tensor, penalty: float) -> Tensor:
    return torch.where(finished, rewards, -penalty)


MISSING_EOS = Table(
    "treatment of cut responses",
    [
        MissingEOS("penalize", _penalize, has_penalty=True),
        MissingEOS("replace", _replace, has_penalty=True),
        MissingEOS("reject", rejects=True),
        MissingEOS("keep"),
    ],
)


def shape_rewards(scores: Tensor, finished: Tensor, config: ShapingConfig) -> Tensor:
    """Return the reward of each response, [B].

    In this order: whitened over the batch (if set), clipped, and then what was cut before it ended
    pays (``penalize``) or gets a fixed low reward (``replace``). ``scores`` [B], ``finished`` [B].
    """
    rewards = scores
    if config.whiten:
        rewards = (rewards - rewards.mean()) * (rewards.var() + 1e-8).rsqrt()
    if config.clip is not None:
        rewards = rewards.clamp(-config.clip, config.clip)
    return MISSING_EOS[config.missing_eos].rewards(rewards, finished, config.missing_eos_penalty)


def truncate_at_stop(
    ids: Sequence[int], finished: bool, stop_token_ids: frozenset[int]
) -> tuple[list[int], bool]:
    """Cut a response behind its first stop token; say whether it counts as finished.

    What was drawn after that token is no part of the response: it is not scored, and no loss sees
    it (Stiennon et al., 2020, cut summaries so at the first newline).
    """
    for place, token in enumerate(ids):
        if token in stop_token_ids:
            return list(ids[: place + 1]), True
    return list(ids), finished
