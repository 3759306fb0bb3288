"""Bradley-Terry: by hand, against statsmodels and crowd-kit, and against a bootstrap."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from crowdkit.aggregation import BradleyTerry
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from plumbline.errors import DataError
from plumbline.statistics import bradley_terry, head_to_head, ranking

WINS = np.array([[0.0, 7.5, 9.0, 12.0], [4.5, 0.0, 6.0, 8.0], [2.0, 5.0, 0.0, 3.5], [1, 2, 2.5, 0]])


def test_two_methods_by_hand():
    found = bradley_terry([[0, 9], [3, 0]])
    assert found == pytest.approx([math.log(3) / 2, -math.log(3) / 2])


def test_strengths_are_statsmodels_logistic_regression():
    rows, points, weights = [], [], []
    for i, j in permutations(range(4), 2):
        row = np.zeros(4)
        row[i], row[j] = 1, -1
        rows.append(row[1:])
        points.append(1.0)
        weights.append(WINS[i, j])
    fit = sm.GLM(
        points, np.array(rows), family=sm.families.Binomial(), freq_weights=np.array(weights)
    ).fit(tol=1e-12)
    expected = np.concatenate([[0.0], fit.params])
    assert bradley_terry(WINS) == pytest.approx(expected - expected.mean(), abs=1e-8)


def test_strengths_are_crowd_kits():
    wins = np.array([[0, 14, 9], [6, 0, 11], [3, 5, 0]])
    rows = [
        {"worker": "w", "left": i, "right": j, "label": i}
        for i, j in permutations(range(3), 2)
        for _ in range(wins[i, j])
    ]
    # Its tolerance compares an array with itself, so any above 0 stops it at the second step.
    expected = np.log(BradleyTerry(n_iter=500, tol=0.0).fit_predict(pd.DataFrame(rows)))
    assert bradley_terry(wins) == pytest.approx(
        (expected - expected.mean()).sort_index().to_numpy(), abs=1e-5
    )


@given(arrays(np.float64, (4, 4), elements=st.integers(1, 30).map(float)))
@settings(max_examples=40, deadline=None)
def test_expected_wins_at_the_maximum_are_the_wins(wins):
    np.fill_diagonal(wins, 0)
    strengths = bradley_terry(wins)
    chance = 1 / (1 + np.exp(strengths[None] - strengths[:, None]))
    expected = ((wins + wins.T) * chance).sum(axis=1)
    assert expected == pytest.approx(wins.sum(axis=1), abs=1e-6)
    assert strengths.mean() == pytest.approx(0, abs=1e-9)


def test_a_method_that_won_everything_has_no_finite_strength_without_a_prior():
    wins = [[0, 5, 4], [0, 0, 3], [0, 2, 0]]
    with pytest.raises(DataError, match=r"\[0\].*one way only.*small prior"):
        bradley_terry(wins)
    assert bradley_terry(wins, prior=0.5)[0] > 1


def test_groups_that_never_met_are_refused():
    wins = np.zeros((4, 4))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 2
    with pytest.raises(DataError, match=r"\[\[0, 1\], \[2, 3\]\]|\[\[2, 3\], \[0, 1\]\]"):
        bradley_terry(wins)


def scores(random, prompts=150, seeds=4):
    shared = random.normal(size=(1, prompts))
    return {
        name: mean
        + shared
        + 0.2 * random.normal(size=(seeds, 1))
        + 0.8 * random.normal(size=(seeds, prompts))
        for name, mean in {"sft": 0.0, "dpo": 0.5, "ppo": 0.9}.items()
    }


def test_a_ranking_is_of_the_win_rates():
    found = ranking(given := scores(np.random.default_rng(0)))
    assert [one.name for one in found] == ["ppo", "dpo", "sft"]
    names = ["sft", "dpo", "ppo"]
    rates = [[head_to_head(given[a], given[b]).mean() for b in names] for a in names]
    expected = dict(zip(names, bradley_terry(150 * np.array(rates), prior=0.5), strict=True))
    for one in found:
        assert one.strength == pytest.approx(expected[one.name])
        assert one.low < one.strength < one.high


def test_a_single_seed_each_gives_the_intervals_of_a_bootstrap_over_prompts():
    random = np.random.default_rng(1)
    given = {name: values[:1] for name, values in scores(random, prompts=400).items()}
    found = {one.name: one for one in ranking(given)}
    names, drawn = list(given), []
    for _ in range(600):
        chosen = random.integers(400, size=400)
        rates = [
            [head_to_head(given[a][:, chosen], given[b][:, chosen]).mean() for b in names]
            for a in names
        ]
        drawn.append(bradley_terry(400 * np.array(rates), prior=0.5))
    deviations = np.std(drawn, axis=0)
    for name, deviation in zip(names, deviations, strict=True):
        half = (found[name].high - found[name].low) / 2
        assert half == pytest.approx(1.966 * deviation, rel=0.1)


def test_intervals_hold_the_strengths_of_all_prompts_and_seeds():
    means = np.array([0.0, 0.5, 0.9])  # as in scores(); differences are normal
    rates = special.ndtr((means[:, None] - means) / math.sqrt(2 * 0.2**2 + 2 * 0.8**2))
    truth = dict(zip(["sft", "dpo", "ppo"], bradley_terry(rates), strict=True))
    random, held = np.random.default_rng(3), []
    for _ in range(250):
        held += [one.low <= truth[one.name] <= one.high for one in ranking(scores(random, 80))]
    assert 0.93 <= np.mean(held) <= 0.985


def test_the_order_of_methods_does_not_matter():
    given = scores(np.random.default_rng(4))
    turned = {name: given[name] for name in reversed(given)}
    for one, other in zip(ranking(given), ranking(turned), strict=True):
        assert one.name == other.name
        assert one[1:] == pytest.approx(other[1:], abs=1e-9)


def test_a_method_that_won_everything_is_ranked_by_the_prior():
    given = {"good": np.ones((2, 50)), "bad": np.zeros((2, 50))}
    first, second = ranking(given)
    # Half a win and half a loss beside fifty wins.
    assert first.strength - second.strength == pytest.approx(math.log(50.5 / 0.5))
    assert first.name == "good"


@pytest.mark.parametrize(
    ("wins", "message"),
    [(np.ones((2, 3)), "one row and one column"), ([[0, -1], [1, 0]], "0 or more")],
)
def test_impossible_wins_are_refused(wins, message):
    with pytest.raises(DataError, match=message):
        bradley_terry(wins)


def test_a_ranking_needs_two_methods_on_the_same_prompts():
    with pytest.raises(DataError, match="at least two"):
        ranking({"dpo": np.ones((2, 5))})
    with pytest.raises(DataError, match="same prompts"):
        ranking({"dpo": np.ones((2, 5)), "ppo": np.ones((2, 6))})
