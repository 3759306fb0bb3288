"""Corrections for many comparisons, and power: by hand and against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from plumbline.errors import DataError
from plumbline.statistics import benjamini_hochberg, detectable, holm, power_at

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_by_hand():
    # In order: 3 x 0.01, 2 x 0.02 = 0.04, 1 x 0.03, which may not be below 0.04.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


def test_benjamini_hochberg_by_hand():
    # In order: 3/1 x 0.01, 3/2 x 0.04 = 0.06, which may not be above 3/3 x 0.05.
    assert benjamini_hochberg([0.04, 0.01, 0.05]) == pytest.approx([0.05, 0.03, 0.05])


@pytest.mark.slow
@given(P_VALUES)
@settings(max_examples=25, deadline=None)  # statsmodels collects garbage at every call
def test_corrections_are_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)
    expected = multipletests(p_values, method="fdr_bh")[1]
    assert benjamini_hochberg(p_values) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("correction", [holm, benjamini_hochberg])
def test_no_comparisons_need_no_correction(correction):
    assert correction([]) == []


@pytest.mark.parametrize("correction", [holm, benjamini_hochberg])
@pytest.mark.parametrize("wrong", [-0.1, 1.2, math.nan])
def test_what_is_no_p_value_is_refused(correction, wrong):
    with pytest.raises(DataError, match="p-value 1 is"):
        correction([0.5, wrong])


@pytest.mark.parametrize(
    ("count", "effect"),
    [(3, 0.1), (3, 2.5), (10, 0.1), (10, 0.8), (10, 1.5), (200, 0.1), (200, 0.3)],
)
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_power_is_statsmodels(count, effect, alpha):
    expected = TTestPower().power(effect, count, alpha, alternative="two-sided")
    found = power_at(effect, 1 / math.sqrt(count), count - 1, alpha)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [4, 10, 200])
def test_the_detectable_difference_is_statsmodels(count):
    expected = TTestPower().solve_power(nobs=count, alpha=0.05, power=0.8)
    assert detectable(1 / math.sqrt(count), count - 1) == pytest.approx(expected, rel=1e-4)


@given(st.floats(0.01, 100), st.floats(2, 400), st.floats(0.3, 0.99))
def test_a_detectable_difference_has_its_power(error, df, power):
    effect = detectable(error, df, power=power)
    assert power_at(effect, error, df) == pytest.approx(power, abs=1e-6)
    assert power_at(-effect, error, df) == pytest.approx(power, abs=1e-6)


@given(st.floats(1.5, 300))
def test_nothing_to_find_is_claimed_at_alpha(df):
    assert power_at(0.0, 1.0, df, alpha=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(("shift", "df"), [(6.0, 5.0), (9.0, 4.0), (4.0, 2.3)])
def test_power_at_a_strict_level_is_that_of_the_definition(shift, df):
    limit = stats.t.ppf(1 - 1e-4 / 2, df)

    def beyond(square):
        """The chance that |Z + shift| exceeds the limit, at this chi²."""
        bound = limit * math.sqrt(square / df)
        return stats.chi2.pdf(square, df) * (
            special.ndtr(shift - bound) + special.ndtr(-bound - shift)
        )

    expected, _ = integrate.quad(beyond, 0, np.inf)
    assert power_at(shift, 1.0, df, alpha=1e-4) == pytest.approx(expected, abs=1e-6)


def test_many_standard_errors_are_always_found():
    assert power_at(60.0, 1.0, 20.0) == pytest.approx(1)
    assert power_at(0.1, 0.0, 20.0) == 1


@pytest.mark.parametrize(
    ("error", "df", "alpha", "message"),
    [
        (-1.0, 5.0, 0.05, "standard error"),
        (math.nan, 5.0, 0.05, "standard error"),
        (1.0, 0.0, 0.05, "degrees of freedom"),
        (1.0, 5.0, 5.0, "alpha"),
    ],
)
def test_impossible_designs_are_refused(error, df, alpha, message):
    with pytest.raises(DataError, match=message):
        power_at(1.0, error, df, alpha)
    with pytest.raises(DataError, match=message):
        detectable(error, df, alpha)


def test_a_power_below_alpha_is_refused():
    with pytest.raises(DataError, match="power is"):
        detectable(1.0, 5.0, alpha=0.05, power=0.04)
