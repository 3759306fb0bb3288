"""Score against KL: matched, under the curve, and the shape of Gao et al.; worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from plumbline.errors import DataError
from plumbline.statistics import area_to, at_kl, best_of_n_kl, gao_fit

KL = [0.0, 1.0, 4.0, 9.0]  # distances 0, 1, 2, 3
SCORE = [0.0, 2.0, 3.0, 1.0]


def test_interpolation_is_linear_in_the_distance():
    assert at_kl(KL, SCORE, 2.25) == pytest.approx(2.5)  # halfway between distances 1 and 2
    assert at_kl(KL, SCORE, 4.0) == 3.0
    assert at_kl(KL, SCORE, 9.0) == 1.0


def test_nothing_is_extrapolated():
    assert at_kl(KL, SCORE, 9.01) is None
    assert at_kl(KL[1:], SCORE[1:], 0.5) is None
    assert at_kl([], [], 1.0) is None


def test_checkpoints_at_the_same_kl_count_as_their_mean():
    assert at_kl([4.0, 1.0, 4.0], [5.0, 0.0, 7.0], 4.0) == 6.0


def test_an_estimate_below_zero_counts_as_zero():
    assert at_kl([-0.2, 1.0], [3.0, 5.0], 0.0) == 3.0


def test_an_area_by_hand():
    # 1 under the first stretch, 2.5 under the second, 0.5 x (3 + 2) / 2 under half of the third.
    assert area_to(KL, SCORE, 6.25) == pytest.approx((1 + 2.5 + 1.25) / 2.5)
    assert area_to(KL, SCORE, 4.0) == pytest.approx(3.5 / 2)


def test_an_area_needs_the_reference_and_the_budget():
    assert area_to(KL[1:], SCORE[1:], 4.0) is None
    assert area_to(KL, SCORE, 9.1) is None


@given(
    st.lists(
        st.tuples(st.floats(0.01, 20), st.floats(-5, 5)),
        min_size=1,
        max_size=8,
        unique_by=lambda point: round(point[0], 2),
    ),
    st.floats(-3, 3),
    st.randoms(use_true_random=False),
)
def test_an_area_is_the_mean_of_the_interpolation(points, shift, random):
    points = [(0.0, 0.0), *points]
    random.shuffle(points)
    kl, score = (list(column) for column in zip(*points, strict=True))
    budget = max(kl) * 0.8
    found = area_to(kl, score, budget)
    end = math.sqrt(budget)
    corners = [math.sqrt(k) for k in kl if 0 < k < budget]
    whole, _ = integrate.quad(lambda d: at_kl(kl, score, d * d), 0, end, points=corners, limit=200)
    assert found == pytest.approx(whole / end, abs=1e-6)
    assert area_to(kl, [s + shift for s in score], budget) == pytest.approx(found + shift)


@given(st.floats(0.2, 3), st.floats(0.1, 2))
def test_the_rl_form_is_found_again_with_its_peak(alpha, beta):
    kl = np.array([0.0, 0.3, 1.0, 2.5, 6.0, 12.0, 30.0])
    d = np.sqrt(kl)
    score = np.where(d > 0, d * (alpha - beta * np.log(np.where(d > 0, d, 1))), 0)
    found = gao_fit(kl, score)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-8)
    assert found.r_squared == pytest.approx(1)
    # The derivative, α - β log d - β, is 0 there.
    assert alpha - beta * math.log(found.peak_kl) / 2 - beta == pytest.approx(0, abs=1e-6)


@given(st.floats(0.2, 3), st.floats(0.1, 2))
def test_the_best_of_n_form_is_found_again_with_its_peak(alpha, beta):
    d = np.array([0.5, 1.0, 1.5, 2.0])
    found = gao_fit(d**2, d * (alpha - beta * d), "bon")
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=1e-8)
    assert found.peak_kl == pytest.approx((alpha / (2 * beta)) ** 2)
    assert found.form == "bon"


def test_peaks_by_hand():
    d = np.array([1.0, math.e, math.e**2])
    found = gao_fit(d**2, d * (2 - np.log(d)))
    assert found.peak_kl == pytest.approx(math.e**2)  # d = exp(2 / 1 - 1)


def test_r_squared_by_hand():
    # d = 1, 2, 4 and y = 1, 2, 4 + 3: fitted by "bon" with x = (d, d²); normal equations
    # [[21, 73], [73, 273]] (α, -β) = (33, 121) give α = 176 / 404 and -β = 132 / 404.
    found = gao_fit([1.0, 4.0, 16.0], [1.0, 2.0, 7.0], "bon")
    assert (found.alpha, -found.beta) == pytest.approx((176 / 404, 132 / 404))
    fitted = [308 / 404, 880 / 404, 2816 / 404]
    residual = sum((y - f) ** 2 for y, f in zip([1, 2, 7], fitted, strict=True))
    assert found.r_squared == pytest.approx(1 - residual / (62 / 3))
    assert found.peak_kl is None  # it rises for ever


def test_a_curve_that_only_falls_has_no_peak():
    assert gao_fit([1.0, 4.0, 9.0], [-1.0, -3.0, -6.0], "bon").peak_kl is None


def test_a_peak_beyond_all_numbers_is_none():
    d = np.array([1.0, 2.0, 3.0])
    assert gao_fit(d**2, d * (1 - 1e-4 * np.log(d))).peak_kl is None


def test_the_reference_itself_carries_nothing():
    d = np.array([1.0, 2.0, 3.0, 4.0])
    score = np.array([1.0, 1.4, 1.2, 0.4])
    assert gao_fit([0.0, *d**2], [0.0, *score]) == gao_fit(d**2, score)


def test_best_of_n_by_hand():
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gao_fit([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]), "2 different KLs above 0"),
        (lambda: gao_fit([1.0, 2.0, 3.0], [0.0, 1.0]), "one of each"),
        (lambda: gao_fit([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], "ppo"), 'form is "ppo"'),
        (lambda: at_kl([1.0, math.nan], [0.0, 1.0], 1.0), "checkpoint 1 has KL nan"),
        (lambda: at_kl(KL, SCORE, -1.0), "target KL is -1"),
        (lambda: area_to(KL, SCORE, 0.0), "needs a width"),
        (lambda: best_of_n_kl(0), "n of 1 or more"),
    ],
)
def test_what_has_no_answer_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
