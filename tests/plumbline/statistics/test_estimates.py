"""Win points and one policy's intervals: by hand, against scipy's definitions, by coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from plumbline.statistics import bootstrap_interval, mean_and_se, sequence_kl, win_scores


def test_win_points_count_a_tie_as_half():
    assert win_scores([1.0, 2.0, 3.0], [0.0, 2.0, 4.0]) == [1.0, 0.5, 0.0]


def test_win_points_of_swapped_sides_sum_to_one():
    ours, theirs = [0.3, 1.0, -2.0, 5.0], [0.3, 0.0, 4.0, 4.9]
    both = zip(win_scores(ours, theirs), win_scores(theirs, ours), strict=True)
    assert all(a + b == 1 for a, b in both)


def test_answers_to_different_numbers_of_prompts_are_refused():
    with pytest.raises(ValueError, match=r"zip|longer|shorter"):
        win_scores([1.0], [1.0, 2.0])


def test_an_interval_is_near_the_normal_one_for_many_points():
    points = np.random.default_rng(0).choice([0.0, 0.5, 1.0], 2000, p=[0.3, 0.2, 0.5])
    found = bootstrap_interval(points, 0.95, 2000, seed=0)
    error = points.std(ddof=1) / np.sqrt(len(points))
    assert found.low == pytest.approx(points.mean() - 1.96 * error, abs=0.004)
    assert found.high == pytest.approx(points.mean() + 1.96 * error, abs=0.004)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        points = generator.choice([0.0, 1.0], 60, p=[0.4, 0.6])
        found = bootstrap_interval(points, 0.9, 400, seed=trial)
        covered += found.low <= 0.6 <= found.high
    assert 0.82 <= covered / 200 <= 0.96


def test_an_interval_is_the_same_for_the_same_seed():
    points = [0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 1.0]
    assert bootstrap_interval(points, 0.95, 500, 7) == bootstrap_interval(points, 0.95, 500, 7)


def test_winning_every_time_is_not_certainty():
    found = bootstrap_interval([1.0] * 20, 0.95, 500, 0)
    exact = stats.binomtest(20, 20).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == (exact.low, exact.high)
    assert found.low < 0.9


def test_one_point_has_no_interval():
    with pytest.raises(ValueError, match="needs two values"):
        bootstrap_interval([1.0], 0.95, 100, 0)


def test_sequence_kl_by_hand():
    estimate = sequence_kl([-1.0, -2.0, -3.0], [-2.0, -4.0, -3.0])
    assert estimate.mean == pytest.approx(1.0)
    assert estimate.se == pytest.approx(1 / np.sqrt(3))


def test_one_value_has_no_error():
    assert mean_and_se([3.0]) == (3.0, 0.0)
