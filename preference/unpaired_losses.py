"""Losses of responses that were liked or not, without pairs: pure functions, one loss each.

Shapes: ``B`` responses. As in `preference.logprobs`, r(y) = log pi(y | x) - log ref(y | x).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plumbline.tables import Table
from preference.logprobs import LossSettings


class LabeledLogprobs(NamedTuple):
    """Log-probabilities of responses, and whether each was liked."""

    policy: Tensor
    """[B] log-probability under the policy, summed over the tokens."""
    reference: Tensor
    """[B] the same under the reference."""
    desirable: Tensor
    """[B] True where the response was liked."""
    shift: Tensor
    """[] what rewards are compared with. KTO: the KL of policy and reference, in nats, at least 0.
    BCO: the running mean of rewards beta r(y). It has no gradient."""

    @property
    def log_ratio(self) -> Tensor:
        """[B] r(y), in nats."""
        return self.policy - self.reference


UnpairedFunction = Callable[[LabeledLogprobs, LossSettings], Tensor]
"""Maps log-probabilities and settings to losses [B]."""


@dataclass(frozen=True)
class UnpairedLoss:
    """A row of the table of unpaired losses."""

    name: str
    function: UnpairedFunction
    shift: str = "none"
    """What the loss compares rewards with: kl, mean or none."""


def kto_loss(logprobs: LabeledLogprobs, settings: LossSettings) -> Tensor:
    """KTO (Ethayarajh et al., 2024, eq. 7), [B].

    w (1 - sigma(beta (r - KL))) of a response that was liked, w' (1 - sigma(beta (KL - r))) of one
    that was not, with w and w' ``desirable_weight`` and ``undesirable_weight``.
    """
    gain = settings.beta * (logprobs.log_ratio - logprobs.shift)
    return _weighted((-gain).sigmoid(), gain.sigmoid(), logprobs, settings)


def apo_zero_unpaired_loss(logprobs: LabeledLogprobs, settings: LossSettings) -> Tensor:
    """APO-zero without pairs (D'Oosterlinck et al., 2024, eq. 7), [B]: KTO without its KL."""
    reward = settings.beta * logprobs.log_ratio
    return _weighted((-reward).sigmoid(), reward.sigmoid(), logprobs, settings)


def bco_loss(logprobs: LabeledLogprobs, settings: LossSettings) -> Tensor:
    """BCO (Jung et al., 2024), [B]: a classifier whose logit is the reward.

    -log sigma(beta r - delta) of a response that was liked, -log sigma(delta - beta r) of one that
    was not, with delta the running mean of both sides' mean rewards.
    """
    logits = settings.beta * logprobs.log_ratio - logprobs.shift
    return _weighted(-logsigmoid(logits), -logsigmoid(-logits), logprobs, settings)


def _weighted(
    liked: Tensor, disliked: Tensor, logprobs: LabeledLogprobs, settings: LossSettings
) -> Tensor:
    return torch.where(
        logprobs.desirable,
        settings.desirable_weight * liked,
        settings.undesirable_weight * disliked,
    )


UNPAIRED_LOSSES = Table(
    "unpaired preference loss",
    [
        UnpairedLoss("kto", kto_loss, "kl"),
        UnpairedLoss("apo_zero_unpaired", apo_zero_unpaired_loss),
        UnpairedLoss("bco", bco_loss, "mean"),
    ],
)
