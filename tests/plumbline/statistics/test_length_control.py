"""The length-controlled win rate: against statsmodels, by properties, by a planted effect."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special

from plumbline.errors import DataError
from plumbline.statistics import instruction_difficulty, length_controlled, win_rate


def planted(random, quality=0.0, effect=1.5, seeds=4, prompts=250, together=0.0):
    """Points, our lengths and theirs; longer answers are preferred, and ours are longer."""
    easiness = random.normal(size=prompts)
    theirs = 200 + 40 * random.normal(size=prompts)
    apart = np.sqrt(1 - together**2) * random.normal(size=(seeds, prompts))
    ours = theirs + 50 + 60 * (together * easiness + apart)
    odds = quality + effect * np.tanh((ours - theirs) / 60) + easiness
    won = random.random((seeds, prompts)) < special.expit(odds)
    return won.astype(float), ours, theirs, easiness


def test_the_fit_is_statsmodels_logistic_regression():
    points, ours, theirs, easiness = planted(np.random.default_rng(0), quality=0.3, prompts=3000)
    found = length_controlled(points, ours, theirs, easiness)
    difference = ours - theirs
    term = np.tanh(difference / difference.std())
    design = sm.add_constant(
        np.column_stack([term.ravel(), np.broadcast_to(easiness, points.shape).ravel()])
    )
    expected = sm.GLM(points.ravel(), design, family=sm.families.Binomial()).fit()
    # The prior is worth one comparison among 12,000.
    assert found.coefficient == pytest.approx(expected.params[1], abs=2e-3)
    at_equal = special.expit(expected.params[0] + expected.params[2] * easiness).mean()
    assert found.win_rate == pytest.approx(at_equal, abs=1e-4)


def test_the_error_is_statsmodels_sandwich_with_prompts_as_clusters():
    points, ours, theirs, _ = planted(np.random.default_rng(1), quality=0.3, seeds=1, prompts=2000)
    found = length_controlled(points, ours, theirs)
    difference = ours - theirs
    design = sm.add_constant(np.tanh(difference / difference.std()).ravel())
    expected = sm.GLM(points.ravel(), design, family=sm.families.Binomial()).fit(cov_type="HC0")
    slope = found.win_rate * (1 - found.win_rate)
    assert found.se == pytest.approx(slope * expected.bse[0], rel=5e-3)


def test_a_planted_length_effect_is_removed():
    random = np.random.default_rng(2)
    raw, controlled, covered = [], [], 0
    for _ in range(150):
        points, ours, theirs, _ = planted(random)
        found = length_controlled(points, ours, theirs)
        raw.append(found.raw)
        controlled.append(found.win_rate)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(raw) > 0.6
    assert np.mean(controlled) == pytest.approx(0.5, abs=0.01)
    assert 0.9 <= covered / 150 <= 0.99


def test_difficulty_undoes_what_goes_with_length():
    random = np.random.default_rng(3)
    without, with_it = [], []
    for _ in range(10):
        points, ours, theirs, easiness = planted(random, seeds=10, together=0.5)
        gamma = instruction_difficulty(points, ours, theirs)
        assert np.corrcoef(gamma, easiness)[0, 1] > 0.7
        assert gamma.mean() == pytest.approx(0, abs=1e-9)
        without.append(length_controlled(points, ours, theirs).win_rate)
        with_it.append(length_controlled(points, ours, theirs, gamma).win_rate)
    assert np.mean(without) < 0.46
    assert np.mean(with_it) == pytest.approx(0.5, abs=0.015)


def test_swapping_the_sides_mirrors_the_result():
    points, ours, theirs, easiness = planted(np.random.default_rng(4), seeds=1)
    one = length_controlled(points, ours, theirs, easiness)
    other = length_controlled(1 - points, theirs[None], ours, -easiness)
    assert one.win_rate == pytest.approx(1 - other.win_rate, abs=1e-9)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-9)
    assert one.coefficient == pytest.approx(other.coefficient, abs=1e-9)


def test_the_unit_of_length_and_the_order_of_prompts_do_not_matter():
    random = np.random.default_rng(5)
    points, ours, theirs, easiness = planted(random)
    order = random.permutation(points.shape[1])
    one = length_controlled(points, ours, theirs, easiness)
    other = length_controlled(
        points[:, order], 7 * ours[:, order], 7 * theirs[order], easiness[order]
    )
    assert tuple(other) == pytest.approx(tuple(one), rel=1e-7)


def test_prompts_whose_levels_differ_add_to_the_error():
    # Half the prompts are won by all of 200 seeds, half by none; only prompts are uncertain.
    easy = np.repeat([8.0, -8.0], 20)
    points, lengths = np.tile((easy > 0).astype(float), (200, 1)), np.zeros((200, 40))
    found = length_controlled(points, lengths, np.zeros(40), easy)
    assert found.se == pytest.approx(np.std(points[0], ddof=1) / np.sqrt(40), rel=0.01)


def test_equal_lengths_leave_the_win_rate_alone():
    random = np.random.default_rng(6)
    ours, theirs = random.normal(0.2, 1, (3, 400)), random.normal(size=(3, 400))
    points = (np.sign(ours[:, None] - theirs[None]) + 1) / 2
    lengths = np.full((3, 400), 50.0)
    found, plain = length_controlled(points, lengths, lengths), win_rate(ours, theirs)
    assert found.win_rate == pytest.approx(plain.difference, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-3)
    assert found.coefficient == 0


def test_ties_are_soft_points():
    lengths, others = np.arange(40.0)[None], np.arange(40.0)[::-1]
    found = length_controlled(np.full((1, 40), 0.5), lengths, others)
    assert found.win_rate == pytest.approx(0.5)
    assert found.coefficient == pytest.approx(0, abs=1e-9)


def test_length_explains_nothing_where_all_was_won():
    random = np.random.default_rng(7)
    lengths, others = random.normal(size=(2, 30)), random.normal(size=30)
    found = length_controlled(np.ones((2, 30)), lengths, others)
    plain = win_rate(np.ones((2, 30)), np.zeros((1, 30)))
    assert (found.win_rate, found.low, found.high) == (1.0, plain.low, plain.high)
    assert found.coefficient == 0


def test_wins_that_length_separates_stay_finite():
    lengths = np.arange(-10.0, 11.0)[None]
    found = length_controlled((lengths > 0).astype(float), lengths, np.zeros(21))
    assert np.isfinite(found.coefficient)
    assert 0 < found.low < found.win_rate < found.high < 1


@pytest.mark.parametrize(
    ("points", "lengths", "others", "difficulty", "message"),
    [
        (np.ones((1, 3)), np.ones((2, 3)), np.ones(3), None, "other lengths"),
        (np.ones((1, 3)), np.ones((1, 4)), np.ones(3), None, "same prompts"),
        (np.full((1, 3), 2.0), np.ones((1, 3)), np.ones(3), None, "between 0"),
        (np.full((1, 3), np.nan), np.ones((1, 3)), np.ones(3), None, "between 0"),
        (np.ones((1, 3)), np.full((1, 3), np.nan), np.ones(3), None, "length"),
        (np.ones((1, 3)), np.ones((1, 3)), np.ones(3), np.ones(2), "difficulty"),
        (np.ones((1, 1)), np.ones((1, 1)), np.ones(1), None, "two prompts"),
    ],
)
def test_what_does_not_fit_is_refused(points, lengths, others, difficulty, message):
    with pytest.raises(DataError, match=message):
        length_controlled(points, lengths, others, difficulty)
