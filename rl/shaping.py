"""From a scorer's scores to the rewards of responses, as pure functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbline.tables import Table


@dataclass(frozen=True)
class MissingEOS:
    """What becomes of a response that was cut before its end token.

    ``penalize`` subtracts a penalty from its reward, ``replace`` sets a fixed low reward.
    """

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


def shape_rewards(scores: Tensor, *, whiten: bool, clip: float | None) -> Tensor:
    """Return the reward of each response, [B]: its score, whitened over the batch, then clipped."""
    rewards = scores
    if whiten:
        rewards = (rewards - rewards.mean()) * (rewards.var() + 1e-8).rsqrt()
    if clip is not None:
        rewards = rewards.clamp(-clip, clip)
    return rewards


def truncate_at_stop(
    ids: Sequence[int], finished: bool, stop_token_ids: frozenset[int]
) -> tuple[list[int], bool]:
    """Cut a response behind its first stop token; say whether it counts as finished.

    What was sampled after that token does not belong to the response: it is not scored, and no loss
    sees it (Stiennon et al., 2020, cut summaries so at the first newline).
    """
    for place, token in enumerate(ids):
        if token in stop_token_ids:
            return list(ids[: place + 1]), True
    return list(ids), finished
