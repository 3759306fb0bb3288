"""Contrasts over prompts and seeds: by hand, against scipy and statsmodels, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from plumbline.errors import DataError
from plumbline.statistics import Contrast, contrast, hierarchical_bootstrap, mean_interval

#: Worked by hand: row means 3 and 5, column means 2, 4, 6; the rest is 0, -1, 1 and 0, 1, -1.
OURS = np.array([[1.0, 2.0, 6.0], [3.0, 6.0, 6.0]])
#: Row means 2 and 0, column means 1, 1, 1; the rest is -1, 0, 1 and 1, 0, -1.
THEIRS = np.array([[1.0, 2.0, 3.0], [1.0, 0.0, -1.0]])

SCORES = arrays(np.float64, (3, 6), elements=st.integers(-8, 8).map(float))


def simulated(random, seeds, prompts, deviation, difference=0.0):
    """Scores with prompts shared by both methods, and seeds that differ."""
    shared = random.normal(size=(1, prompts))
    ours, theirs = (
        shared
        + 0.5 * random.normal(size=(1, prompts))
        + deviation * random.normal(size=(seeds, 1))
        + 0.7 * random.normal(size=(seeds, prompts))
        for _ in range(2)
    )
    return ours + difference, theirs


def close(found: Contrast, expected: Contrast):
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-9)
    assert found.seeds == expected.seeds


def test_a_contrast_by_hand():
    found = contrast(OURS, THEIRS)
    # By prompt the difference is 1, 3, 5: mean 3, variance 4, over 3 prompts.
    # Each method's seeds: variance 2 over 2 seeds, less its rest of 4 / 2 over 6 answers.
    seeds = 1 + 1 - 2 * (4 / 2) / 6
    variance = 4 / 3 + seeds
    t = 3 / math.sqrt(variance)
    assert found.difference == pytest.approx(3)
    assert found.se == pytest.approx(math.sqrt(variance))
    assert found.seed_se == pytest.approx(math.sqrt(seeds))
    # Prompts have 2 degrees of freedom, and so have two seeds a side by Welch.
    assert found.df == pytest.approx(2)
    assert found.high - 3 == pytest.approx(4.302653 * math.sqrt(variance), rel=1e-6)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(t * t + 2))  # t's with 2 df
    assert found.seeds == (2, 2)


def test_prompts_and_seeds_take_each_its_own_quantile():
    ours = np.tile(np.arange(5.0), (2, 1)) + np.array([[0.0], [2.0]])
    found = mean_interval(ours)
    # Prompts: variance 2.5 over 5, 4 degrees of freedom. Seeds: variance 2 over 2, one. No rest.
    half = math.sqrt(2.776445**2 * 0.5 + 12.706205**2 * 1.0)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-6)
    assert stats.t.ppf(0.975, found.df) * found.se == pytest.approx(half, rel=1e-6)
    assert 1 < found.df < 4


def test_one_seed_a_method_is_the_paired_t_test():
    random = np.random.default_rng(0)
    ours, theirs = random.normal(0.3, 1, (1, 40)), random.normal(size=(1, 40))
    found, expected = contrast(ours, theirs), stats.ttest_rel(ours[0], theirs[0])
    interval = expected.confidence_interval(0.95)
    assert found[:6] == pytest.approx(
        (
            (ours - theirs).mean(),
            (ours - theirs).std(ddof=1) / math.sqrt(40),
            39,
            interval.low,
            interval.high,
            expected.pvalue,
        )
    )
    assert found.seed_se is None
    assert found.seeds == (1, 1)


def test_seeds_that_differ_by_constants_are_compared_by_welchs_test():
    ours, theirs = np.array([1.0, 2.0, 4.0, 4.5]), np.array([0.0, 0.1, 0.3])
    prompts = np.linspace(-3, 3, 7)
    found = contrast(ours[:, None] + prompts, theirs[:, None] + prompts)
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.df == pytest.approx(expected.df)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.seed_se == pytest.approx(found.se)


def test_the_variance_is_that_of_a_two_way_analysis():
    random = np.random.default_rng(3)
    scores = simulated(random, 4, 9, 0.8)[0]
    rows = [(s, p, scores[s, p]) for s in range(4) for p in range(9)]
    frame = pd.DataFrame(rows, columns=["seed", "prompt", "score"])
    squares = anova_lm(ols("score ~ C(seed) + C(prompt)", frame).fit())["mean_sq"]
    variance = squares["C(seed)"] + squares["C(prompt)"] - squares["Residual"]
    assert squares["C(seed)"] > squares["Residual"]
    assert mean_interval(scores).se == pytest.approx(math.sqrt(variance / scores.size))


def test_a_level_with_one_seed_is_the_t_test():
    values = np.random.default_rng(1).normal(0.6, 1, (1, 25))
    expected = stats.ttest_1samp(values[0], 0.5)
    found = mean_interval(values, null=0.5)
    assert found.difference == pytest.approx(values.mean() - 0.5)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low + 0.5, found.high + 0.5) == pytest.approx((interval.low, interval.high))


def test_one_side_may_be_a_single_given_policy():
    ours, theirs = simulated(np.random.default_rng(2), 5, 60, 0.4)
    found = contrast(ours, theirs[:1])
    assert found.seeds == (5, 1)
    assert found.seed_se == pytest.approx(mean_interval(ours).seed_se)


def test_seeds_that_differ_no_more_than_chance_leave_prompts_alone():
    ours = np.array([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])
    found = mean_interval(ours)
    assert found.seed_se == 0
    assert found.df == 3


@given(SCORES, SCORES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_prompts_and_of_seeds_does_not_matter(ours, theirs, random):
    prompts, seeds = list(range(6)), list(range(3))
    random.shuffle(prompts)
    random.shuffle(seeds)
    close(contrast(ours[:, prompts][seeds], theirs[:, prompts]), contrast(ours, theirs))


@given(SCORES, SCORES)
@settings(max_examples=40, deadline=None)
def test_swapping_the_methods_flips_the_sign(ours, theirs):
    one, other = contrast(ours, theirs), contrast(theirs, ours)
    flipped = other._replace(difference=-other.difference, low=-other.high, high=-other.low)
    close(flipped, one)


@given(SCORES, SCORES, st.integers(-20, 20), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_constant_shifts_and_a_factor_stretches(ours, theirs, constant, factor):
    one = contrast(ours, theirs)
    moved = contrast(factor * ours + constant, factor * theirs)
    for name in ("difference", "low", "high"):
        expected = factor * getattr(one, name) + constant
        assert getattr(moved, name) == pytest.approx(expected, abs=1e-8)
    assert moved.se == pytest.approx(factor * one.se)


@given(SCORES, SCORES, st.sampled_from([0.5, 0.8, 0.9, 0.99]))
@settings(max_examples=60, deadline=None)
def test_the_p_value_agrees_with_every_interval(ours, theirs, confidence):
    found = contrast(ours, theirs, confidence)
    if found.se > 0 and abs(found.p_value - (1 - confidence)) > 1e-9:
        assert (found.p_value < 1 - confidence) == (found.low > 0 or found.high < 0)


def test_intervals_cover_where_those_over_prompts_alone_do_not():
    random = np.random.default_rng(5)
    covered = naive = claimed = 0
    for _ in range(500):
        ours, theirs = simulated(random, 3, 60, 0.3, difference=0.2)
        found = contrast(ours, theirs)
        covered += found.low <= 0.2 <= found.high
        claimed += contrast(ours - 0.2, theirs).p_value < 0.05
        by_prompt = stats.ttest_1samp(ours.mean(axis=0) - theirs.mean(axis=0), 0.2)
        naive += by_prompt.pvalue > 0.05
    assert 0.93 <= covered / 500 <= 0.985
    assert claimed == 500 - covered
    assert naive / 500 < 0.7


def test_the_plain_bootstrap_covers_too_seldom_and_the_corrected_one_does_not():
    random = np.random.default_rng(6)
    covered = {True: 0, False: 0}
    for number in range(250):
        ours, theirs = simulated(random, 3, 50, 0.4, difference=0.2)
        for corrected in covered:
            found = hierarchical_bootstrap(
                ours, theirs, resamples=300, seed=number, corrected=corrected
            )
            covered[corrected] += found.low <= 0.2 <= found.high
    assert covered[False] / 250 < 0.9
    assert 0.92 <= covered[True] / 250 <= 0.99


def test_resamples_have_the_variances_of_two_way_resampling():
    random = np.random.default_rng(7)
    scores = simulated(random, 6, 80, 0.5)[0]
    found = hierarchical_bootstrap(scores, resamples=20_000, corrected=False)
    # Seeds and prompts drawn with replacement, each pair once for every time both were drawn.
    seeds = random.integers(6, size=(20_000, 6))
    prompts = random.integers(80, size=(20_000, 80))
    means = [scores[np.ix_(s, p)].mean() for s, p in zip(seeds, prompts, strict=True)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_a_bootstrap_is_the_same_for_the_same_seed():
    ours, theirs = simulated(np.random.default_rng(8), 3, 30, 0.2)
    assert hierarchical_bootstrap(ours, theirs, seed=1) == hierarchical_bootstrap(
        ours, theirs, seed=1
    )
    assert hierarchical_bootstrap(ours, theirs, seed=1) != hierarchical_bootstrap(
        ours, theirs, seed=2
    )


def test_methods_that_are_equal_everywhere_do_not_differ():
    found = contrast(OURS[:1], OURS[:1])
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_rounding_makes_no_difference():
    random = np.random.default_rng(9)
    ours = 0.1 * random.integers(9, size=(1, 30)) + np.array([[0.1], [0.2], [0.7]])
    found = contrast(ours, ours[[2, 0, 1]])
    assert found.difference == 0
    assert found.p_value == 1
    # One of thirteen orders of a sum or another leaves a rest where none should be.
    constant = np.full((13, 7), 0.1) + np.zeros((13, 1))
    found = contrast(constant + 0.2, constant)
    assert (found.se, found.p_value) == (0, 0)


def test_a_difference_beyond_all_doubt_has_no_p_value_to_speak_of():
    ours = OURS[:1] + 1e6
    assert contrast(np.vstack([ours, ours + 0.001]), THEIRS[:1] / 1e9).p_value < 1e-9
    steady = np.tile(np.linspace(0, 1e-6, 50), (2, 1)) + np.array([[0.0], [1e-9]])
    many = np.vstack([steady + shift for shift in np.linspace(0, 1e-8, 40)])
    assert contrast(many + 1, many).p_value == 0


def test_a_difference_that_never_varies_is_certain():
    found = contrast(OURS[:1] + 1, OURS[:1])
    assert (found.low, found.high, found.p_value) == (1, 1, 0)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "3 prompts and the other on 4.*same prompts"),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), "scores of A.*seed 0, prompt 1"),
        (np.ones((1, 2)), np.array([[1.0, np.inf]]), "scores of B.*not finite"),
        (np.ones(3), np.ones(3), "1 dimensions.*one row per training seed"),
        (np.ones((2, 1)), np.ones((2, 1)), "two prompts"),
        (np.ones((0, 3)), np.ones((2, 3)), "0 seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused(ours, theirs, message):
    with pytest.raises(DataError, match=message):
        contrast(ours, theirs)
    with pytest.raises(DataError, match=message):
        hierarchical_bootstrap(ours, theirs)


def test_an_impossible_confidence_is_refused():
    with pytest.raises(DataError, match=r"95; it must lie between 0 and 1"):
        mean_interval(OURS, confidence=95)
