"""What a preference loss sees: log-probabilities of both responses, and the settings.

Shapes: ``B`` pairs. With pi the policy and ref the reference, the losses see a pair through

    r(y) = log pi(y | x) - log ref(y | x)                 the log-ratio of one response, in nats,
    h    = r(chosen) - r(rejected)                        the margin of the pair, in nats,

and beta r(y) is the reward that the policy implies (Rafailov et al., 2023, eq. 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plumbline.tables import Table

#: exp of more than this is not a number in float32.
_LARGEST_EXPONENT = 80.0


class PairLogprobs(NamedTuple):
    """Log-probabilities of both responses of each pair, under the policy and the reference."""

    chosen: Tensor
    """[B] log-probability of the chosen response under the policy, summed over its tokens."""
    rejected: Tensor
    """[B] the same of the rejected response."""
    reference_chosen: Tensor
    """[B] log-probability of the chosen response under the reference; 0 where there is none."""
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

    @property
    def chosen_mean(self) -> Tensor:
        """[B] log-probability per token of the chosen response under the policy."""
        return self.chosen / self.chosen_tokens.clamp(min=1)

    @property
    def rejected_mean(self) -> Tensor:
        """[B] the same of the rejected response."""
        return self.rejected / self.rejected_tokens.clamp(min=1)


class LossSettings(NamedTuple):
    """What a loss can be told. Each row of the tables names the settings that it reads."""

    beta: float = 0.1
    """Weight of the implied KL penalty; of the log-probabilities, where there is no reference."""
    label_smoothing: float | Tensor = 0.0
    """Probability that the label is wrong: one number, or [B] of soft labels."""
    target_margin: float | Tensor = 0.0
    """Reward margin that is subtracted from that of a pair: one number, or [B] of graded labels."""
    divergence: str = "reverse_kl"
    """Row of `DIVERGENCES`."""
    divergence_alpha: float = 0.5
    """Order of the alpha-divergence."""
    discopop_tau: float = 0.05
    """Temperature of DiscoPOP's mixture."""
    dpop_lambda: float = 50.0
    """Weight of DPO-Positive's penalty."""
    alphapo_alpha: float = 0.25
    """Shape of AlphaPO's reward; towards 0 it is SimPO's."""
    orpo_lambda: float = 0.1
    """Weight of ORPO's odds ratio beside its SFT term."""
    desirable_weight: float = 1.0
    """Weight of a response that was liked."""
    undesirable_weight: float = 1.0
    """Weight of a response that was not."""


# --- Divergences from the reference. --------------------------------------------------------------


class Divergence(NamedTuple):
    """A row of the table of f-divergences."""

    name: str
    score: Callable[[Tensor, float], Tensor]
    """Maps log-ratios [B] and alpha to f'(pi / ref), less a constant that cancels, [B]."""
    uses_alpha: bool = False
    """Whether it has an order, alpha."""


def reverse_kl_score(log_ratio: Tensor, alpha: float) -> Tensor:
    """Return log u, with u = pi / ref: the KL of DPO itself, [B]."""
    return log_ratio


def forward_kl_score(log_ratio: Tensor, alpha: float) -> Tensor:
    """Return 1 - 1 / u, [B] (Wang et al., 2024, "Beyond reverse KL")."""
    return 1 - torch.exp(-log_ratio)


def js_score(log_ratio: Tensor, alpha: float) -> Tensor:
    """Return log(2 u / (1 + u)), [B]: the Jensen-Shannon divergence (the same)."""
    return math.log(2) + logsigmoid(log_ratio)


def alpha_score(log_ratio: Tensor, alpha: float) -> Tensor:
    """Return (u^(alpha - 1) - 1) / (alpha - 1), [B]: the alpha-divergence, as TRL orders alpha.

    Towards alpha = 1 it is the reverse KL. The exponent is limited where float32 ends.
    """
    order = alpha - 1
    if abs(order) < 1e-6:
        return log_ratio
    return (order * log_ratio).clamp(max=_LARGEST_EXPONENT).expm1() / order


DIVERGENCES = Table(
    "divergence",
    [
        Divergence("reverse_kl", reverse_kl_score),
        Divergence("forward_kl", forward_kl_score),
        Divergence("js_divergence", js_score),
        Divergence("alpha_divergence", alpha_score, uses_alpha=True),
    ],
)


def pair_scores(logprobs: PairLogprobs, settings: LossSettings) -> tuple[Tensor, Tensor]:
    """Return what the divergence makes of both log-ratios, [B] each; themselves for DPO's KL."""
    score, alpha = DIVERGENCES[settings.divergence].score, settings.divergence_alpha
    return score(logprobs.chosen_log_ratio, alpha), score(logprobs.rejected_log_ratio, alpha)


def pair_logits(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """Return beta (score(chosen) - score(rejected)) - target margin, [B].

    Without a target margin and with the reverse KL this is DPO's beta h. The target margin is the
    offset of Amini et al. (2024), "DPO with an offset".
    """
    chosen, rejected = pair_scores(logprobs, settings)
    return settings.beta * (chosen - rejected) - settings.target_margin


def smoothed(logits: Tensor, label_smoothing: float | Tensor) -> Tensor:
    """Return -(1 - e) log sigma(z) - e log sigma(-z), [B]: the cross-entropy of soft labels.

    With e the probability that the label is wrong, z [B] the logits that it is right.
    """
    losses = -logsigmoid(logits)
    if isinstance(label_smoothing, float | int) and label_smoothing == 0:
        return losses
    return (1 - label_smoothing) * losses - label_smoothing * logsigmoid(-logits)


def response_sums(token_logprobs: Tensor, tokens: Tensor, ld_alpha: float | None) -> Tensor:
    """Return the log-probability of both responses of each pair, [B, 2].

    Of the tokens' log-probabilities [B, 2, R], 0 at padding, and the numbers of tokens [B, 2].
    ``ld_alpha``: tokens behind the end of the shorter response have this weight, so that length
    alone counts for less (LD-DPO; Liu et al., 2024). Null and 1 are the plain sum.
    """
    if ld_alpha is None:
        return token_logprobs.sum(2)
    shared = tokens.amin(1).view(-1, 1, 1)
    behind = torch.arange(token_logprobs.shape[2], device=tokens.device) >= shared
    return torch.where(behind, ld_alpha * token_logprobs, token_logprobs).sum(2)


def pairs_of_sums(policy: Tensor, reference: Tensor | None, tokens: Tensor) -> PairLogprobs:
    """Return what losses see, of sums [B, 2] under policy and reference (None: there is none)."""
    if reference is None:
        reference = torch.zeros_like(policy)
    columns = [column for part in (policy, reference, tokens) for column in part.unbind(1)]
    return PairLogprobs(*columns)
