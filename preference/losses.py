"""Losses of direct preference optimisation and its relatives: pure functions, one loss per pair.

Each takes the `PairLogprobs` of ``B`` pairs and `LossSettings`, and returns losses [B], of which
the trainer takes the mean. `LOSSES` at the end has one row for each ``dpo.loss``.

A loss of your own takes log-probabilities, beta and label_smoothing; name it by its dotted path
(``dpo.loss: my_module.my_loss``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plumbline.tables import Table
from preference.logprobs import (
    LossSettings,
    PairLogprobs,
    pair_logits,
    pair_scores,
    smoothed,
)

LossFunction = Callable[[PairLogprobs, LossSettings], Tensor]
"""Maps log-probabilities and settings to losses [B]."""


@dataclass(frozen=True)
class PreferenceLoss:
    """A row of the table of losses."""

    name: str
    function: LossFunction
    uses: frozenset[str] = frozenset()
    """Settings that it reads beside beta; each is refused with a loss that does not read it."""
    has_reference: bool = True
    """Whether it compares with a reference."""
    couples_pairs: bool = False
    """Whether a pair's loss depends on the others of its batch."""
    takes_soft_labels: bool = True
    """Whether it is defined for a label that is certain, or as likely wrong as right."""
    needs_smoothing: bool = False
    """Whether it is infinite where labels are not smoothed."""

    @property
    def uses_label_smoothing(self) -> bool:
        """Whether it reads ``label_smoothing``, or soft labels in its place."""
        return "label_smoothing" in self.uses


# --- Losses of the margin. ------------------------------------------------------------------------


def sigmoid_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """DPO (Rafailov et al., 2023, eq. 7), and conservative DPO where labels are smoothed, [B].

    -(1 - e) log sigma(beta h) - e log sigma(-beta h)

    With e = ``label_smoothing``, the assumed share of pairs whose label is wrong, this is eq. 3 of
    Mitchell (2023), "A note on DPO with noisy preferences". It is least where the policy is as
    sure of the pair as the labels are: sigma(beta h) = 1 - e.
    """
    return smoothed(pair_logits(logprobs, settings), settings.label_smoothing)


def sigmoid_norm_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """DPO on log-ratios per token (length-normalised, as in Tülu 3; Lambert et al., 2024), [B].

    -log sigma(beta (r(chosen) / tokens - r(rejected) / tokens))
    """
    chosen, rejected = _scores_per_token(logprobs, settings)
    logits = settings.beta * (chosen - rejected) - settings.target_margin
    return smoothed(logits, settings.label_smoothing)


def ipo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """IPO (Azar et al., 2024, eq. 17), [B].

    (h - 1 / (2 beta))^2

    Here, and in TRL, each log-ratio is the mean over its response's tokens, as the authors of IPO
    confirmed to TRL's: with sums the target would depend on the length of the responses.
    """
    chosen, rejected = _scores_per_token(logprobs, settings)
    return (chosen - rejected - 1 / (2 * settings.beta)).square()


def hinge_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """SLiC's hinge (Zhao et al., 2023) on the margin: the hinge-norm of Liu et al. (2024), [B].

    max(0, 1 - beta h)
    """
    return torch.relu(1 - pair_logits(logprobs, settings))


def robust_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """Robust DPO, rDPO (Ray Chowdhury et al., 2024, section 3), [B].

    -[(1 - e) log sigma(beta h) - e log sigma(-beta h)] / (1 - 2 e)

    Where a share e of the labels is wrong, at random, its expectation is the loss of `sigmoid_loss`
    on the right labels. A single value may be negative. e < 1/2.
    """
    logits, e = pair_logits(logprobs, settings), settings.label_smoothing
    right, flipped = -logsigmoid(logits), -logsigmoid(-logits)
    return ((1 - e) * right - e * flipped) / (1 - 2 * e)


def exo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """EXO on pairs (Ji et al., 2024, eq. 16), [B]: the reverse KL from the policy to the labels.

    q (log q - log(1 - e)) + (1 - q) (log(1 - q) - log e), with q = sigma(beta h) and 0 < e < 1:
    with e = 0 it would be infinite.
    """
    logits = pair_logits(logprobs, settings)
    e = torch.as_tensor(settings.label_smoothing, dtype=logits.dtype, device=logits.device)
    return logits.sigmoid() * (logsigmoid(logits) - torch.log1p(-e)) + (-logits).sigmoid() * (
        logsigmoid(-logits) - e.log()
    )


def discopop_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """DiscoPOP, the log-ratio modulated loss (Lu et al., 2024, eq. 5), [B].

    (1 - m) (-log sigma(beta h)) + m exp(-beta h), with m = sigma(beta h / tau).

    It is not convex: with the published tau of 0.05 it rises where a margin leaves 0, and falls
    only behind that.
    """
    logits = pair_logits(logprobs, settings)
    share = torch.sigmoid(logits / settings.discopop_tau)
    return (1 - share) * -logsigmoid(logits) + share * torch.exp(-logits)


def dpop_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """DPO-Positive (Pal et al., 2024, "Smaug", eq. 3), [B].

    -log sigma(beta (h - lambda max(0, -r(chosen))))

    The penalty holds the chosen response at least as likely as under the reference.
    """
    penalty = settings.dpop_lambda * torch.relu(-logprobs.chosen_log_ratio)
    logits = pair_logits(logprobs, settings) - settings.beta * penalty
    return smoothed(logits, settings.label_smoothing)


# --- Losses that look at each response by itself. -------------------------------------------------


def nca_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """NCA on pairs (Chen et al., 2024, "Noise contrastive alignment"), [B].

    -log sigma(beta r_c) - (log sigma(-beta r_c) + log sigma(-beta r_r)) / 2
    """
    chosen, rejected = _rewards(logprobs, settings)
    return -logsigmoid(chosen) - 0.5 * (logsigmoid(-chosen) + logsigmoid(-rejected))


def bco_pair_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """BCO on pairs, without its reward shift (Jung et al., 2024), [B].

    -log sigma(beta r_c) - log sigma(-beta r_r)
    """
    chosen, rejected = _rewards(logprobs, settings)
    return -logsigmoid(chosen) - logsigmoid(-rejected)


def sppo_hard_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """SPPO with hard labels (Wu et al., 2024, eq. 4.7, with P = 1 and 0), [B].

    (r_c - 1 / (2 beta))^2 + (r_r + 1 / (2 beta))^2
    """
    target = 0.5 / settings.beta
    return (logprobs.chosen_log_ratio - target).square() + (
        logprobs.rejected_log_ratio + target
    ).square()


def apo_zero_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """APO-zero (D'Oosterlinck et al., 2024, eq. 7), [B]: where chosen ones beat the policy's own.

    1 - sigma(beta r_c) + sigma(beta r_r)
    """
    chosen, rejected = _rewards(logprobs, settings)
    return (-chosen).sigmoid() + rejected.sigmoid()


def apo_down_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """APO-down (the same, eq. 8), [B]: where chosen ones are worse than the policy's own.

    sigma(beta r_c) + 1 - sigma(beta h)
    """
    chosen, rejected = _rewards(logprobs, settings)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


# --- Losses of a whole batch. ---------------------------------------------------------------------


def aot_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """AOT on pairs (Melnyk et al., 2024, "Distributional preference alignment"), [B].

    `sigmoid_loss` after sorting the batch's log pi(chosen) - log pi(rejected), and the reference's,
    each by itself: the whole distribution is to be ahead, not every pair.
    """
    policy = (logprobs.chosen - logprobs.rejected).sort().values
    reference = (logprobs.reference_chosen - logprobs.reference_rejected).sort().values
    return smoothed(settings.beta * (policy - reference), settings.label_smoothing)


def aot_unpaired_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """AOT without pairs (the same), [B]: log-ratios are sorted on either side."""
    chosen, rejected = logprobs.chosen_log_ratio.sort(), logprobs.rejected_log_ratio.sort()
    return smoothed(settings.beta * (chosen.values - rejected.values), settings.label_smoothing)


def sft_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """Negative log-likelihood of the chosen responses, [B].

    Its mean over the batch is that over all their tokens, as in supervised fine-tuning.
    """
    return -logprobs.chosen / logprobs.chosen_tokens.to(logprobs.chosen.dtype).mean().clamp(min=1)


# --- Losses without a reference. ------------------------------------------------------------------


def cpo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """CPO without its SFT term (Xu et al., 2024, eq. 3), [B]; add ``mixture: {sft: 1.0}``.

    -log sigma(beta (log pi(chosen) - log pi(rejected)))
    """
    logits = settings.beta * (logprobs.chosen - logprobs.rejected) - settings.target_margin
    return smoothed(logits, settings.label_smoothing)


def simpo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """SimPO (Meng et al., 2024, eq. 6), [B].

    -log sigma(beta (log pi(chosen) / tokens - log pi(rejected) / tokens) - gamma), with gamma the
    ``target_margin``. The paper has beta from 2 to 10 and gamma / beta from 0.3 to 0.5.
    """
    logits = settings.beta * (logprobs.chosen_mean - logprobs.rejected_mean)
    return smoothed(logits - settings.target_margin, settings.label_smoothing)


def alphapo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """AlphaPO (Gupta et al., 2025), [B]: SimPO with the reward (1 - p^-alpha) / alpha.

    p is the geometric mean of the tokens' probabilities. With alpha = 0 it is SimPO.
    """
    alpha = settings.alphapo_alpha
    if alpha == 0:
        return simpo_loss(logprobs, settings)
    chosen, rejected = (
        -torch.expm1(-alpha * mean) / alpha
        for mean in (logprobs.chosen_mean, logprobs.rejected_mean)
    )
    logits = settings.beta * (chosen - rejected) - settings.target_margin
    return smoothed(logits, settings.label_smoothing)


def orpo_loss(logprobs: PairLogprobs, settings: LossSettings) -> Tensor:
    """ORPO (Hong et al., 2024, eq. 6 and 7), [B]: an SFT term and the odds ratio of the pair.

    -log p(chosen) - lambda log sigma(log odds(chosen) - log odds(rejected)), with p the geometric
    mean of the tokens' probabilities and odds = p / (1 - p). lambda is ``orpo_lambda``.
    """
    chosen, rejected = logprobs.chosen_mean, logprobs.rejected_mean
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return sft_loss(logprobs, settings) - settings.orpo_lambda * logsigmoid(log_odds)


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) of x < 0, exact near 0 and far from it."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -0.693
    # Each branch sees only what it is right for: the other's infinite slope would spoil the sum.
    return torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -0.5))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )


def _rewards(logprobs: PairLogprobs, settings: LossSettings) -> tuple[Tensor, Tensor]:
    return settings.beta * logprobs.chosen_log_ratio, settings.beta * logprobs.rejected_log_ratio


def _scores_per_token(logprobs: PairLogprobs, settings: LossSettings) -> tuple[Tensor, Tensor]:
    chosen, rejected = pair_scores(logprobs, settings)
    return (
        chosen / logprobs.chosen_tokens.clamp(min=1),
        rejected / logprobs.rejected_tokens.clamp(min=1),
    )


def _from_function(name: str, function: Callable[..., Tensor]) -> PreferenceLoss:
    """Return a row for a function of the user's own, which may read label_smoothing."""
    return PreferenceLoss(
        name,
        lambda logprobs, settings: function(logprobs, settings.beta, settings.label_smoothing),
        frozenset({"label_smoothing"}),
        couples_pairs=True,
    )


_SMOOTHED = frozenset({"label_smoothing"})
_OF_MARGIN = frozenset({"target_margin", "divergence"})
_BOTH = _SMOOTHED | _OF_MARGIN
_FREE = _SMOOTHED | {"target_margin"}

LOSSES = Table(
    "preference loss",
    [
        PreferenceLoss("sigmoid", sigmoid_loss, _BOTH),
        PreferenceLoss("sigmoid_norm", sigmoid_norm_loss, _BOTH),
        PreferenceLoss("ipo", ipo_loss, frozenset({"divergence"})),
        PreferenceLoss("hinge", hinge_loss, _OF_MARGIN),
        PreferenceLoss("robust", robust_loss, _BOTH, takes_soft_labels=False),
        PreferenceLoss("exo_pair", exo_loss, _BOTH, takes_soft_labels=False, needs_smoothing=True),
        PreferenceLoss("discopop", discopop_loss, _OF_MARGIN | {"discopop_tau"}),
        PreferenceLoss("dpop", dpop_loss, _BOTH | {"dpop_lambda"}),
        PreferenceLoss("nca_pair", nca_loss),
        PreferenceLoss("bco_pair", bco_pair_loss),
        PreferenceLoss("sppo_hard", sppo_hard_loss),
        PreferenceLoss("apo_zero", apo_zero_loss),
        PreferenceLoss("apo_down", apo_down_loss),
        PreferenceLoss("aot", aot_loss, _SMOOTHED, couples_pairs=True),
        PreferenceLoss("aot_unpaired", aot_unpaired_loss, _SMOOTHED, couples_pairs=True),
        PreferenceLoss("sft", sft_loss, has_reference=False, couples_pairs=True),
        PreferenceLoss("cpo", cpo_loss, _FREE, has_reference=False),
        PreferenceLoss("simpo", simpo_loss, _FREE, has_reference=False),
        PreferenceLoss("alphapo", alphapo_loss, _FREE | {"alphapo_alpha"}, has_reference=False),
        PreferenceLoss(
            "orpo", orpo_loss, frozenset({"orpo_lambda"}), has_reference=False, couples_pairs=True
        ),
    ],
    from_function=_from_function,
)


def mixed_losses(
    weights: Mapping[str, float], plain: PairLogprobs, seen: PairLogprobs, settings: LossSettings
) -> Tensor:
    """Return the weighted sum of several losses, [B].

    ``seen`` is what losses with a reference see, whose tokens may have weights of their own
    (LD-DPO); the others see the ``plain`` sums.
    """
    total = torch.zeros_like(plain.chosen)
    for name, weight in weights.items():
        row = LOSSES[name]
        total = total + weight * row.function(seen if row.has_reference else plain, settings)
    return total
