"""Losses of reward models: by hand, by their definitions as plain sums, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reward.losses import (
    LOSSES,
    PairLabels,
    PairRewards,
    centering_penalty,
    length_effect,
    level_thresholds,
)

LN3 = math.log(3)
rewards = st.floats(-6, 6)


def one(name, chosen, rejected, **labels):
    """The loss of one pair, in float64."""
    tensors = [torch.tensor([float(x)], dtype=torch.float64) for x in (chosen, rejected)]
    return LOSSES[name].function(PairRewards(*tensors), PairLabels(**labels)).item()


def sigma(x):
    return 1 / (1 + math.exp(-x))


def test_bradley_terry_with_a_margin_by_hand():
    # sigma(ln 3) = 3/4; a margin of ln 3 takes all of the lead away.
    assert one("bradley_terry", LN3, 0.0) == pytest.approx(-math.log(3 / 4))
    assert one("bradley_terry", 1 + LN3, 1.0, margin=LN3) == pytest.approx(math.log(2))
    assert one("bradley_terry", LN3, 0.0, probability=0.9) == pytest.approx(
        -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    )


def test_a_strong_preference_counts_as_so_many_weak_ones():
    assert one("scaled_bradley_terry", LN3, 0.0, strength=3.0) == pytest.approx(
        -3 * math.log(3 / 4)
    )


def test_a_flipped_label_by_hand():
    # 0.9 * 3/4 + 0.1 * 1/4 = 0.7
    assert one("flip_aware", LN3, 0.0, flip_rate=0.1) == pytest.approx(-math.log(0.7))
    # ... and no pair costs more than a mistake does.
    assert one("flip_aware", -50.0, 50.0, flip_rate=0.1) == pytest.approx(-math.log(0.1))
    assert one("flip_aware", LN3, 0.0) == pytest.approx(-math.log(3 / 4))


@given(rewards, st.floats(0.01, 0.45))
def test_the_unbiased_loss_is_right_on_average(z, e):
    plain = -math.log(sigma(z))
    average = (1 - e) * one("unbiased", z, 0.0, flip_rate=e)
    average += e * one("unbiased", 0.0, z, flip_rate=e)
    assert average == pytest.approx(plain, abs=1e-9)


def test_the_generalised_cross_entropy_by_hand():
    # (1 - sqrt(3/4)) / (1/2), and the absolute error at q = 1.
    assert one("generalized", LN3, 0.0, power=0.5) == pytest.approx(2 - math.sqrt(3))
    assert one("generalized", LN3, 0.0, power=1.0) == pytest.approx(0.25)
    assert one("generalized", LN3, 0.0, power=1e-6) == pytest.approx(-math.log(3 / 4), abs=1e-5)


def test_rao_and_kupper_by_hand():
    # tie_share 1/3 makes theta 2: P(better) = w / (w + 2 v), here w / v = 3.
    share = {"tie_share": 1 / 3}
    better, worse = 3 / (3 + 2), 1 / (1 + 2 * 3)
    assert one("rao_kupper", LN3, 0.0, **share) == pytest.approx(-math.log(better))
    assert one("rao_kupper", 0.0, LN3, **share) == pytest.approx(-math.log(worse))
    tie = 1 - better - worse
    assert one("rao_kupper", LN3, 0.0, tie=1.0, **share) == pytest.approx(-math.log(tie))
    assert one("rao_kupper", LN3, 0.0, tie=0.25, **share) == pytest.approx(
        -0.75 * math.log(better) - 0.25 * math.log(tie)
    )


def test_davidson_by_hand():
    # tie_share 1/3 makes the weight of a tie 1: shares 4 : 1 : sqrt(4 * 1), of strengths 4 and 1.
    share = {"tie_share": 1 / 3}
    ln4 = math.log(4)
    assert one("davidson", ln4, 0.0, **share) == pytest.approx(-math.log(4 / 7))
    assert one("davidson", 0.0, ln4, **share) == pytest.approx(-math.log(1 / 7))
    assert one("davidson", ln4, 0.0, tie=1.0, **share) == pytest.approx(-math.log(2 / 7))


@pytest.mark.parametrize("name", ["rao_kupper", "davidson"])
@given(rewards, st.floats(0.05, 0.9))
def test_three_outcomes_have_probabilities_that_add_to_one(name, z, share):
    outcomes = [one(name, z, 0.0, tie_share=share), one(name, 0.0, z, tie_share=share)]
    outcomes.append(one(name, z, 0.0, tie=1.0, tie_share=share))
    assert sum(math.exp(-loss) for loss in outcomes) == pytest.approx(1)
    assert math.exp(-one(name, 0.0, 0.0, tie=1.0, tie_share=share)) == pytest.approx(share)


def ratings(chosen, rejected, thresholds=(-LN3, LN3)):
    return {
        "chosen_rating": torch.tensor([float(chosen)]),
        "rejected_rating": torch.tensor([float(rejected)]),
        "thresholds": torch.tensor(thresholds, dtype=torch.float64),
    }


def test_ordinal_ratings_by_hand():
    # At a reward of 0 the levels have sigma(-ln 3) = 1/4, 1/2 and 1/4.
    assert one("ordinal", 0.0, 0.0, **ratings(1, 0)) == pytest.approx(
        -(math.log(1 / 2) + math.log(1 / 4)) / 2
    )
    # At ln 3 the lowest has sigma(-2 ln 3) = 1/10 and the highest sigma(0) = 1/2.
    assert one("ordinal", LN3, LN3, **ratings(2, 0)) == pytest.approx(
        -(math.log(1 / 2) + math.log(1 / 10)) / 2
    )


@given(rewards)
def test_the_levels_of_a_rating_have_probabilities_that_add_to_one(reward):
    levels = [math.exp(-one("ordinal", reward, reward, **ratings(k, k))) for k in range(3)]
    assert sum(levels) == pytest.approx(1)


def test_an_improbable_level_has_a_finite_loss_and_slope():
    reward = torch.tensor([60.0], requires_grad=True)
    labels = PairLabels(**ratings(1, 1))
    loss = LOSSES["ordinal"].function(PairRewards(reward, reward), labels).sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert reward.grad.item() == pytest.approx(1, abs=1e-3)


def test_thresholds_are_those_of_the_shares():
    # Shares 1/4, 1/2, 1/4.
    assert level_thresholds([0, 1, 1, 2]).tolist() == pytest.approx([-LN3, LN3])
    for levels in ([1, 1], [0, 2]):
        with pytest.raises(ValueError, match="two levels or more"):
            level_thresholds(levels)


def test_regression_by_hand():
    assert one("regression", 2.0, 1.0, **ratings(4, 2)) == pytest.approx((4 + 1) / 2)


def test_the_penalty_that_centres_rewards_by_hand():
    pair = PairRewards(torch.tensor([2.0, 1.0]), torch.tensor([1.0, -1.0]))
    assert centering_penalty(pair).tolist() == [9.0, 0.0]


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_are_the_slopes(name):
    generator = torch.Generator().manual_seed(0)
    pair = [
        torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    ]
    uses = LOSSES[name].uses
    labels = PairLabels(
        probability=torch.tensor([1.0, 0.9, 0.5, 0.2, 0.0], dtype=torch.float64),
        margin=torch.tensor([0.0, 0.5, 1.0, 0.0, 2.0], dtype=torch.float64),
        strength=torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0], dtype=torch.float64),
        flip_rate=torch.tensor([0.01, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64),
        tie=torch.tensor([0.0, 1.0, 0.5, 0.0, 0.0], dtype=torch.float64),
    )
    if "rating" in uses:
        labels = labels._replace(
            chosen_rating=torch.tensor([0, 1, 2, 2, 0]),
            rejected_rating=torch.tensor([2, 1, 0, 1, 0]),
            thresholds=torch.tensor([-0.7, 1.1], dtype=torch.float64),
        )
    assert torch.autograd.gradcheck(lambda c, r: LOSSES[name].function(PairRewards(c, r), labels),
                                    pair)  # fmt: skip


def test_the_effect_of_length_by_hand():
    # Three of four pairs of equal length difference go to the longer: log-odds ln 3, less the
    # weak penalty, which 400 pairs hardly feel.
    differences = [1.0] * 300 + [-1.0] * 100
    assert length_effect(differences, [1.0] * 400) == pytest.approx(LN3, abs=0.02)
    assert length_effect([1.0, -1.0], [1.0, 1.0]) == pytest.approx(0)
    # ... and stays finite where length decides all.
    assert 0 < length_effect([1.0] * 50, [1.0] * 50) < 10
