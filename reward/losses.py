"""Losses of reward models: pure functions, one loss per pair.

Shapes: ``B`` pairs. Each takes the rewards of both responses and what the labels say about the
pair, and returns losses [B] in nats, of which the trainer takes the mean. With r the reward and m
the margin of a pair,

    z = r(chosen) - r(rejected) - m

are the log-odds that the label is right (Bradley and Terry, 1952). `LOSSES` at the end has one row
for each ``reward.loss``.

A loss of your own takes `PairRewards` and `PairLabels`; name it by its dotted path
(``reward.loss: my_module.my_loss``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from plumbline.tables import Table


class PairRewards(NamedTuple):
    """Rewards of both responses of each pair, as the model puts them out."""

    chosen: Tensor
    """[B]."""
    rejected: Tensor
    """[B]."""


class PairLabels(NamedTuple):
    """What the labels say about each pair: one number for all, or [B]."""

    probability: float | Tensor = 1.0
    """That the chosen response is the better, between the two."""
    margin: float | Tensor = 0.0
    """m: by how much the chosen one is to be ahead."""
    strength: float | Tensor = 1.0
    """How much better the chosen one is, as its labellers say: a weight of the pair."""
    flip_rate: float | Tensor = 0.0
    """Probability that the label of a pair was flipped by mistake, below 1/2."""
    tie: float | Tensor = 0.0
    """Probability that neither response is the better."""
    tie_share: float = 1 / 3
    """Probability of a tie between two responses of equal reward."""
    power: float = 0.7
    """q of the generalised cross-entropy."""
    chosen_rating: Tensor | None = None
    """[B] rating of the chosen response; for ordinal ratings its level, counted from 0."""
    rejected_rating: Tensor | None = None
    """[B] the same of the rejected response."""
    thresholds: Tensor | None = None
    """[L - 1] rewards at which one level of a rating becomes the next, in rising order."""


LossFunction = Callable[[PairRewards, PairLabels], Tensor]
"""Maps rewards and labels to losses [B]."""


@dataclass(frozen=True)
class RewardLoss:
    """A row of the table of losses."""

    name: str
    function: LossFunction
    uses: frozenset[str] = frozenset()
    """Fields of `PairLabels` that it reads; a setting for another one is refused."""


def bradley_terry_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the cross-entropy of the Bradley-Terry model, [B].

    -p log sigma(z) - (1 - p) log sigma(-z)

    With p = 1 this is eq. 1 of Ouyang et al. (2022), with a margin eq. 2 of Touvron et al. (2023,
    "Llama 2"); with p = 1 - e the labels are smoothed. It is least at sigma(z) = p, where it is the
    entropy of p.
    """
    z = _log_odds(rewards, labels)
    return -_mixed(labels.probability, logsigmoid(z), logsigmoid(-z))


def scaled_bradley_terry_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return `bradley_terry_loss` times the strength of the preference, [B].

    s (-p log sigma(z) - (1 - p) log sigma(-z)): the scaled loss of Wang et al. (2024,
    "HelpSteer2-Preference", eq. 3), under which a strong preference counts as so many weak ones.
    """
    return labels.strength * bradley_terry_loss(rewards, labels)


def flip_aware_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the cross-entropy of labels that were flipped at a known rate e, [B].

    -log((1 - e) sigma(z) + e sigma(-z)), for p = 1

    The model says what is true, and e what the labeller makes of it (forward correction; Patrini
    et al., 2017, section 4.2). It ends at -log(1 - e): a pair that contradicts the model's firm
    opinion is taken for a mistake and pulls no more.
    """
    z = _log_odds(rewards, labels)
    e = torch.as_tensor(labels.flip_rate, dtype=z.dtype, device=z.device)
    kept, flipped = torch.log1p(-e), e.log()

    def observed(logits: Tensor) -> Tensor:
        return torch.logaddexp(kept + logsigmoid(logits), flipped + logsigmoid(-logits))

    return -_mixed(labels.probability, observed(z), observed(-z))


def unbiased_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the loss whose mean over flipped labels is that of the right ones, [B].

    ((1 - e) l(z) - e l(-z)) / (1 - 2 e) with l(z) = -log sigma(z)

    The method of unbiased estimators (Natarajan et al., 2013, lemma 1) for labels flipped at rate
    e < 1/2. A single value may be negative.
    """
    z, e = _log_odds(rewards, labels), labels.flip_rate
    right = -_mixed(labels.probability, logsigmoid(z), logsigmoid(-z))
    flipped = -_mixed(labels.probability, logsigmoid(-z), logsigmoid(z))
    return ((1 - e) * right - e * flipped) / (1 - 2 * e)


def generalized_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the generalised cross-entropy, [B] (Zhang and Sabuncu, 2018, eq. 6).

    p (1 - sigma(z)^q) / q + (1 - p) (1 - sigma(-z)^q) / q

    Towards q = 0 it is the cross-entropy, at q = 1 the mean absolute error, which mistaken labels
    move least; no rate of mistakes need be known.
    """
    z, q = _log_odds(rewards, labels), labels.power
    return _mixed(
        labels.probability,
        -torch.expm1(q * logsigmoid(z)) / q,
        -torch.expm1(q * logsigmoid(-z)) / q,
    )


def rao_kupper_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the cross-entropy of the model of Rao and Kupper (1967), which knows ties, [B].

    P(chosen is better) = sigma(z - h), P(rejected is better) = sigma(-z - h), and a tie has the
    rest, (e^(2 h) - 1) sigma(z - h) sigma(-z - h). With h = 0 there are no ties. h follows from
    ``tie_share`` s, the probability of a tie at z = 0: h = log((1 + s) / (1 - s)).
    """
    z, s = _log_odds(rewards, labels), labels.tie_share
    threshold = math.log((1 + s) / (1 - s))
    better, worse = logsigmoid(z - threshold), logsigmoid(-z - threshold)
    tie = math.log(math.expm1(2 * threshold)) + better + worse
    return _with_ties(labels, better, worse, tie)


def davidson_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the cross-entropy of Davidson's model (1970), which knows ties, [B].

    Chosen, rejected and tie have shares e^(z / 2) : e^(-z / 2) : v, with v the weight of a tie.
    v follows from ``tie_share`` s, the probability of a tie at z = 0: v = 2 s / (1 - s).
    """
    z, s = _log_odds(rewards, labels), labels.tie_share
    logits = torch.stack([z / 2, -z / 2, torch.full_like(z, math.log(2 * s / (1 - s)))])
    better, worse, tie = torch.log_softmax(logits, dim=0)
    return _with_ties(labels, better, worse, tie)


def ordinal_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the cross-entropy of both responses' ratings under proportional odds, [B].

    P(rating <= k) = sigma(c_k - r), with thresholds c (McCullagh, 1980, section 2.1); the mean of
    both responses. Ratings are levels: only their order counts, not the distance between them.
    """
    chosen, rejected, thresholds = _ratings(labels)
    if thresholds is None:
        raise ValueError("ordinal ratings need thresholds")
    return (
        _ordinal(rewards.chosen, chosen, thresholds)
        + _ordinal(rewards.rejected, rejected, thresholds)
    ) / 2


def regression_loss(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return the mean squared error of both responses' rewards as ratings, [B], not in nats.

    ((r_c - y_c)^2 + (r_r - y_r)^2) / 2 (Wang et al., 2024, "HelpSteer2", section 4.1).
    """
    chosen, rejected, _ = _ratings(labels)
    return ((rewards.chosen - chosen).square() + (rewards.rejected - rejected).square()) / 2


def centering_penalty(rewards: PairRewards) -> Tensor:
    """Return (r_c + r_r)^2, [B]: it keeps rewards near 0 (Eisenstein et al., 2023, section 2)."""
    return (rewards.chosen + rewards.rejected).square()


def level_thresholds(levels: Sequence[int]) -> Tensor:
    """Return the thresholds at which rewards of 0 would give levels their shares, [L - 1].

    ``levels`` are all ratings of a dataset, as levels from 0 to L - 1, each met at least once.
    c_k = log(F_k / (1 - F_k)) with F_k the share of ratings of level k or lower.

    Raises `ValueError` where there are fewer than two levels, or one of them is never met.
    """
    counts = torch.bincount(torch.tensor(levels))
    if len(counts) < 2 or not bool((counts > 0).all()):
        raise ValueError("ratings need two levels or more, and each at least once")
    shares = counts.cumsum(0)[:-1].double() / len(levels)
    return torch.logit(shares).float()


def length_effect(differences: Sequence[float], probabilities: Sequence[float]) -> float:
    """Return by how much the log-odds of being chosen rise with a unit of length difference.

    A logistic regression without intercept of labels ``probabilities`` that the chosen response is
    better on ``differences`` of length, chosen less rejected, found by Newton's method; a weak
    penalty (half the square) keeps it finite where length decides every pair.
    """
    x = torch.tensor(differences, dtype=torch.float64)
    p = torch.tensor(probabilities, dtype=torch.float64)
    effect = torch.zeros((), dtype=torch.float64)
    for _ in range(100):
        share = torch.sigmoid(effect * x)
        slope = (x * (p - share)).sum() - effect
        step = slope / ((x.square() * share * (1 - share)).sum() + 1)
        effect = effect + step.clamp(-1, 1)
        if float(step.abs()) < 1e-10:
            break
    return float(effect)


def _log_odds(rewards: PairRewards, labels: PairLabels) -> Tensor:
    """Return z, [B]."""
    return rewards.chosen - rewards.rejected - labels.margin


def _mixed(probability: float | Tensor, if_right: Tensor, if_wrong: Tensor) -> Tensor:
    """Return p times the one plus 1 - p times the other, [B]."""
    if isinstance(probability, float | int) and probability == 1:
        return if_right
    return probability * if_right + (1 - probability) * if_wrong


def _with_ties(labels: PairLabels, better: Tensor, worse: Tensor, tie: Tensor) -> Tensor:
    """Return the cross-entropy of three outcomes, whose log-probabilities are given, [B]."""
    return -((1 - labels.tie) * _mixed(labels.probability, better, worse) + labels.tie * tie)


def _ratings(labels: PairLabels) -> tuple[Tensor, Tensor, Tensor | None]:
    if labels.chosen_rating is None or labels.rejected_rating is None:
        raise ValueError("this loss needs ratings of both responses")
    return labels.chosen_rating, labels.rejected_rating, labels.thresholds


def _ordinal(reward: Tensor, level: Tensor, thresholds: Tensor) -> Tensor:
    """Return -log P(level), [B], of rewards [B], exact where the probability is tiny.

    sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - e^(a - b)), of a level between thresholds a < b.
    """
    below = reward.new_full((1,), -float("inf"))
    edges = torch.cat([below, thresholds.to(reward), -below])
    low, high = edges[level.long()], edges[level.long() + 1]
    width = torch.log(-torch.expm1(low - high))
    return -(logsigmoid(high - reward) + logsigmoid(reward - low) + width)


_ODDS = frozenset({"probability", "margin"})

LOSSES = Table(
    "loss of a reward model",
    [
        RewardLoss("bradley_terry", bradley_terry_loss, _ODDS),
        RewardLoss("scaled_bradley_terry", scaled_bradley_terry_loss, _ODDS | {"strength"}),
        RewardLoss("flip_aware", flip_aware_loss, _ODDS | {"flip_rate"}),
        RewardLoss("unbiased", unbiased_loss, _ODDS | {"flip_rate"}),
        RewardLoss("generalized", generalized_loss, _ODDS | {"power"}),
        RewardLoss("rao_kupper", rao_kupper_loss, _ODDS | {"tie"}),
        RewardLoss("davidson", davidson_loss, _ODDS | {"tie"}),
        RewardLoss("ordinal", ordinal_loss, frozenset({"rating", "levels"})),
        RewardLoss("regression", regression_loss, frozenset({"rating"})),
    ],
    from_function=lambda name, function: RewardLoss(
        name, function, frozenset({*_ODDS, "strength", "flip_rate", "tie", "power"})
    ),
)
