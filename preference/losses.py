"""Losses of direct preference optimisation: pure functions of log-probabilities, one per pair.

Shapes: ``B`` pairs. With pi the policy and ref the reference, the loss sees a pair through

    r(y) = log pi(y | x) - log ref(y | x)                 the log-ratio of one response, in nats,
    h    = r(chosen) - r(rejected)                        the margin of the pair, in nats,

and beta r(y) is the reward that the policy implies (Rafailov et al., 2023, eq. 5).

A loss of your own has the signature of these functions; name it by its dotted path
(``dpo.loss: my_module.my_loss``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plumbline.tables import Table


class PairLogprobs(NamedTuple):
    """Log-probabilities of both responses of each pair, under the policy and the reference."""

    chosen: Tensor
    """[B] log-probability of the chosen response under the policy, summed over its tokens."""
    rejected: Tensor
    """[B] the same of the rejected response."""
    reference_chosen: Tensor
    """[B] log-probability of the chosen response under the reference."""
    reference_rejected: Tensor
    """[B] the same of the rejected response."""
    chosen_tokens: Tensor
    """[B] tokens of the chosen response, its end token included."""
    rejected_tokens: Tensor
    """[B] tokens of the rejected response."""

    @property
    def chosen_log_ratio(self) -> Tensor:
        """[B] r(chosen), in nats."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_log_ratio(self) -> Tensor:
        """[B] r(rejected), in nats."""
        return self.rejected - self.reference_rejected

    @property
    def margin(self) -> Tensor:
        """[B] h, in nats."""
        return self.chosen_log_ratio - self.rejected_log_ratio


LossFunction = Callable[[PairLogprobs, float, float], Tensor]
"""Maps log-probabilities, beta and label_smoothing to losses [B]."""


@dataclass(frozen=True)
class PreferenceLoss:
    """A row of the table of losses."""

    name: str
    function: LossFunction
    uses_label_smoothing: bool = False
    """Whether the loss reads ``label_smoothing``; the setting is refused with the others."""


def sigmoid_loss(logprobs: PairLogprobs, beta: float, label_smoothing: float) -> Tensor:
    """DPO (Rafailov et al., 2023, eq. 7), and conservative DPO where labels are smoothed, [B].

    -(1 - e) log sigma(beta h) - e log sigma(-beta h)

    With e = ``label_smoothing``, the assumed share of pairs whose label is wrong, this is eq. 3 of
    Mitchell (2023), "A note on DPO with noisy preferences". It is least where the policy is as
    sure of the pair as the labels are: sigma(beta h) = 1 - e.
    """
    logits = beta * logprobs.margin
    losses = -logsigmoid(logits)
    if label_smoothing == 0:
        return losses
    return (1 - label_smoothing) * losses - label_smoothing * logsigmoid(-logits)


def ipo_loss(logprobs: PairLogprobs, beta: float, label_smoothing: float) -> Tensor:
    """IPO (Azar et al., 2024, eq. 17), [B].

    (h - 1 / (2 beta))^2

    Here, and in TRL, each log-ratio is the mean over its response's tokens, as the authors of IPO
    confirmed to TRL's: with sums the target would depend on the length of the responses.
    """
    margin = logprobs.chosen_log_ratio / logprobs.chosen_tokens.clamp(
        min=1
    ) - logprobs.rejected_log_ratio / logprobs.rejected_tokens.clamp(min=1)
    return (margin - 1 / (2 * beta)).square()


def hinge_loss(logprobs: PairLogprobs, beta: float, label_smoothing: float) -> Tensor:
    """SLiC's hinge (Zhao et al., 2023) on the margin: the hinge-norm of Liu et al. (2024), [B].

    max(0, 1 - beta h)
    """
    return torch.relu(1 - beta * logprobs.margin)


def robust_loss(logprobs: PairLogprobs, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO, rDPO (Ray Chowdhury et al., 2024, section 3), [B].

    -[(1 - e) log sigma(beta h) - e log sigma(-beta h)] / (1 - 2 e)

    Where a share e of the labels is wrong, at random, its expectation is the loss of `sigmoid_loss`
    on the right labels. A single value may be negative. e < 1/2.
    """
    logits = beta * logprobs.margin
    right, flipped = -logsigmoid(logits), -logsigmoid(-logits)
    return ((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)


LOSSES = Table(
    "preference loss",
    [
        PreferenceLoss("sigmoid", sigmoid_loss, uses_label_smoothing=True),
        PreferenceLoss("ipo", ipo_loss),
        PreferenceLoss("hinge", hinge_loss),
        PreferenceLoss("robust", robust_loss, uses_label_smoothing=True),
    ],
    # A function of the user's own is given label_smoothing, and may read it.
    from_function=lambda name, function: PreferenceLoss(name, function, uses_label_smoothing=True),
)
