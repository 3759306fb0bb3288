"""Win rates between methods with several seeds: by hand, against scipy, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

from plumbline.errors import DataError
from plumbline.statistics import contrast, head_to_head, win_rate, win_scores

SCORES = arrays(np.float64, (2, 5), elements=st.integers(0, 4).map(float))


def test_every_seed_meets_every_other():
    points = head_to_head([[1.0, 5.0], [2.0, 0.0]], [[1.0, 4.0], [3.0, 0.0], [0.0, 9.0]])
    assert points.tolist() == [
        [[0.5, 1.0], [0.0, 1.0], [1.0, 0.0]],
        [[1.0, 0.0], [0.0, 0.5], [1.0, 0.0]],
    ]


@given(SCORES, SCORES)
@settings(max_examples=40, deadline=None)
def test_one_seed_a_side_is_win_points(ours, theirs):
    assert head_to_head(ours[:1], theirs[:1])[0, 0].tolist() == win_scores(ours[0], theirs[0])


def test_a_win_rate_by_hand():
    # Won 1, 1, 1/2, 0 of four prompts: mean 0.625, variance 0.229167 over 4 prompts.
    found = win_rate([[2.0, 2.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]])
    error = math.sqrt((0.375**2 * 2 + 0.125**2 + 0.625**2) / 3 / 4)
    half = 3.182446 * error / (0.625 * 0.375)
    middle = math.log(0.625 / 0.375)
    assert found.difference == 0.625
    assert found.se == pytest.approx(error)
    assert found.low == pytest.approx(1 / (1 + math.exp(half - middle)), rel=1e-6)
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - middle)), rel=1e-6)
    t = middle * 0.625 * 0.375 / error
    assert found.p_value == pytest.approx(2 * stats.t.sf(t, 3))
    assert found.seed_se is None


def test_against_one_given_policy_a_win_rate_has_the_error_of_its_points():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(size=(4, 50)), random.normal(size=(1, 50))
    points = head_to_head(ours, theirs)[:, 0]
    found, plain = win_rate(ours, theirs), contrast(points, np.zeros((1, 50)))
    assert found.se == pytest.approx(plain.se)
    assert found.df == pytest.approx(plain.df)
    assert found.seeds == (4, 1)


@given(SCORES, SCORES)
@settings(max_examples=60, deadline=None)
def test_swapped_sides_mirror_each_other_within_zero_and_one(ours, theirs):
    one, other = win_rate(ours, theirs), win_rate(theirs, ours)
    assert one.difference + other.difference == pytest.approx(1)
    assert one.low == pytest.approx(1 - other.high, abs=1e-9)
    assert one.p_value == pytest.approx(other.p_value, rel=1e-6, abs=1e-12)
    assert 0 <= one.low <= one.difference <= one.high <= 1


@given(SCORES, SCORES)
@settings(max_examples=60, deadline=None)
def test_the_p_value_agrees_with_the_interval(ours, theirs):
    found = win_rate(ours, theirs)
    if found.se > 0 and abs(found.p_value - 0.05) > 1e-9:
        assert (found.p_value < 0.05) == (not found.low <= 0.5 <= found.high)


def test_winning_every_time_is_not_certainty():
    found = win_rate(np.ones((3, 20)), np.zeros((3, 20)))
    exact = stats.binomtest(20, 20)
    limits = exact.proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((limits.low, 1.0))
    assert found.p_value == pytest.approx(0.5**19)


def test_ties_everywhere_are_an_even_match():
    found = win_rate(np.ones((2, 9)), np.ones((3, 9)))
    assert (found.difference, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.p_value == 1


def test_intervals_cover_a_lopsided_win_rate():
    random = np.random.default_rng(4)
    # The difference of two answers is normal with mean 2 and this deviation.
    truth = special.ndtr(2 / math.sqrt(2 * 0.25 + 2 * 0.49 + 2 * 0.09))
    covered = 0
    for _ in range(400):
        shared = random.normal(size=(1, 80))
        ours, theirs = (
            shared
            + 0.5 * random.normal(size=(1, 80))
            + 0.3 * random.normal(size=(4, 1))
            + 0.7 * random.normal(size=(4, 80))
            for _ in range(2)
        )
        found = win_rate(ours + 2, theirs)
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / 400 <= 0.985


def test_different_prompts_are_refused():
    with pytest.raises(DataError, match="same prompts in the same order"):
        win_rate(np.ones((1, 3)), np.ones((1, 4)))
