"""The audit's statistics: by hand, against scipy and statsmodels, and on planted truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reward.audit.biases import accuracy_by_length, find_biases, order_effect
from reward.audit.label_problems import contradictions, suspicious_labels, worth_labeling
from reward.audit.optimization import over_optimization, sizes_up_to
from reward.audit.pair_calibration import pair_calibration
from reward.audit.people import agreement, columns_of_people, majority, votes_in
from reward.audit.regression import linear, logistic
from reward.audit.shares import difference_of, pair_points, share_of, weak_subsets
from reward.temperature import fit_temperature


def test_shares_are_wilson_s():
    share = share_of([1.0] * 7 + [0.0] * 3)
    exact = stats.binomtest(7, 10).proportion_ci(method="wilson")
    assert share == pytest.approx((0.7, exact.low, exact.high, 10))
    assert pair_points([2.0, -1.0, 0.0]) == [1.0, 0.0, 0.5]
    with pytest.raises(ValueError, match="nothing"):
        share_of([])


def test_a_difference_by_hand():
    # Newcombe (1998), table II, case (a): 56/70 - 48/80 is 0.2, from 0.0524 to 0.3339.
    gap = difference_of(share_of([1] * 56 + [0] * 14), share_of([1] * 48 + [0] * 32))
    assert gap[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_weak_subsets_are_those_below_the_others():
    points = {"bad": [0.0] * 30 + [1.0] * 10, "good": [1.0] * 90 + [0.0] * 10, "few": [0.0]}
    (weak,) = weak_subsets(points)
    assert weak.subset == "bad" and weak.accuracy.value == 0.25 and weak.p_value < 1e-6
    assert weak_subsets({"only": [0.0, 1.0]}) == []


def test_a_subset_is_compared_within_its_own_partition():
    """The others of 'bad' are 'good' alone: 90 of 100, whatever the languages are."""
    subsets = {"bad": [0.0] * 30 + [1.0] * 10, "good": [1.0] * 90 + [0.0] * 10}
    languages = {"English": [1.0] * 95, "German": [0.0] * 40 + [1.0] * 5}
    weak = {entry.subset: entry.others for entry in weak_subsets(subsets, languages)}
    assert {name: (share.value, share.size) for name, share in weak.items()} == {
        "bad": (0.9, 100), "German": (1.0, 95),
    }  # fmt: skip
    assert [entry.subset for entry in weak_subsets({"only": [1.0] * 40}, languages)] == ["German"]


def test_weak_subsets_are_rarely_found_where_there_are_none():
    accused = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        points = {str(n): (draw.random(40) < 0.7).astype(float).tolist() for n in range(6)}
        accused += bool(weak_subsets(points))
    assert accused / 200 <= 0.06


def test_regressions_agree_with_statsmodels():
    import statsmodels.api as sm

    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 2))
    y = x @ [0.7, -0.2] + draw.normal(size=400) * (1 + abs(x[:, 0]))
    ours, theirs = linear(x, y), sm.OLS(y, x).fit(cov_type="HC3")
    assert ours.values == pytest.approx(theirs.params)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(theirs.bse)
    won = draw.random(400) < 1 / (1 + np.exp(-x @ [1.0, 0.5]))
    fit = logistic(np.where(won[:, None], x, -x))
    named = sm.Logit(won.astype(float), x).fit(disp=0, cov_type="HC0")
    assert fit.values == pytest.approx(named.params, abs=1e-6)
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx(named.bse, rel=1e-4)


def test_what_has_no_estimate_gets_none():
    assert logistic(np.ones((5, 1))) is None  # every pair is separated
    column = np.arange(6.0) - 2
    assert linear(np.column_stack([column, 2 * column]), column) is None
    assert logistic(np.column_stack([column, 2 * column])) is None


def simulated(seed, pairs, bias=0.0, labeler=0.0, quality=0.0, noise=0.5):
    """Return margins (in standard deviations), differences of traits and the score's std.

    Quality and length are normal; ``quality`` is what length adds to quality, ``bias`` to the
    score, ``labeler`` to what the labeller likes. Labels have Bradley-Terry noise.
    """
    draw = np.random.default_rng(seed)
    length = draw.normal(size=(2, pairs))
    worth = quality * length + draw.normal(size=(2, pairs))
    liked = worth + labeler * length
    score = worth + bias * length + noise * draw.normal(size=(2, pairs))
    others = {name: draw.integers(0, 2, size=(2, pairs)) for name in "abcd"}
    side = np.where(draw.random(pairs) < 1 / (1 + np.exp(liked[1] - liked[0])), 1, -1)
    std = score.std()
    differences = {"length": side * (length[0] - length[1])}
    differences |= {name: side * (v[0] - v[1]) for name, v in others.items()}
    return side * (score[0] - score[1]) / std, differences, std


@pytest.mark.parametrize("bias", [0.4, -0.4])
def test_a_planted_bias_is_found_with_its_sign_and_size(bias):
    covered = 0
    for seed in range(40):
        margins, differences, std = simulated(seed, 1000, bias=bias)
        first, *others = find_biases(margins, differences)
        assert first.trait == "length" and first.is_found
        assert np.sign(first.beyond_labels.value) == np.sign(bias)
        covered += first.beyond_labels.low <= bias / std <= first.beyond_labels.high
        assert not any(other.is_found for other in others)
    assert covered >= 34  # 95 % intervals: fewer has a chance of 1 in 1000


def test_a_labeler_who_prefers_longer_is_seen_in_the_labels_and_in_a_model_that_learned_it():
    # Labels and score have the same habit: beyond these labels the model has none of its own.
    margins, differences, std = simulated(3, 2000, bias=0.5, labeler=0.5, noise=0.1)
    length = find_biases(margins, differences)[0]
    assert length.of_labels.low > 0 and not length.is_found
    assert length.of_score.low <= 0.5 / std <= length.of_score.high
    # The same model, audited by labels without the habit: it is found, with its size.
    margins, differences, std = simulated(3, 2000, bias=0.5, labeler=0.0, noise=0.1)
    length = find_biases(margins, differences)[0]
    assert length.is_found
    assert length.beyond_labels.low <= 0.5 / std <= length.beyond_labels.high


@pytest.mark.parametrize(("quality", "noise"), [(0.0, 0.5), (0.5, 0.0), (0.5, 1.0)])
def test_a_model_without_a_bias_is_not_accused(quality, noise):
    """Also where longer responses are better, and where the score is noisy."""
    accused = 0
    for seed in range(300):
        margins, differences, _ = simulated(seed, 300, quality=quality, noise=noise)
        accused += any(bias.is_found for bias in find_biases(margins, differences))
    assert accused / 300 <= 0.05


def test_accuracy_by_length_by_hand():
    result = accuracy_by_length([1.0, 2.0, -1.0, -1.0, 1.0], [3.0, 1.0, -2.0, -1.0, 0.0])
    assert result.longer_is_better.value == 1.0 and result.longer_is_worse.value == 0.0
    assert result.gap.value == 1.0
    assert accuracy_by_length([1.0], [1.0]).gap is None


@pytest.mark.parametrize("planted", [0.8, -0.8])
def test_a_planted_order_effect_is_found_with_its_size(planted):
    draw = np.random.default_rng(5)
    score = draw.normal(size=4000)  # of the response shown first, less the other's
    first_won = draw.random(4000) < 1 / (1 + np.exp(-(score + planted)))
    effect = order_effect(np.where(first_won, score, -score), first_won.tolist())
    assert effect.log_odds.low <= planted <= effect.log_odds.high
    assert effect.log_odds.p_value < 1e-6
    assert order_effect([1.0], [True]) is None


def test_without_an_order_effect_few_are_accused():
    accused = 0
    for seed in range(300):
        draw = np.random.default_rng(seed)
        score = draw.normal(size=200)
        won = draw.random(200) < 1 / (1 + np.exp(-score))
        accused += order_effect(np.where(won, score, -score), won.tolist()).log_odds.p_value < 0.05
    assert accused / 300 <= 0.09  # 5 %, and three standard errors


def test_the_temperature_is_the_one_that_made_the_labels():
    draw = np.random.default_rng(0)
    difference = draw.normal(size=20_000) * 3
    right = draw.random(20_000) < 1 / (1 + np.exp(-difference / 2))
    margins = np.where(right, difference, -difference)
    assert fit_temperature(margins) == pytest.approx(2.0, rel=0.05)
    before, after = pair_calibration(margins), pair_calibration(margins, 2.0)
    assert before.ece > 0.08 > 0.02 > after.ece
    assert after.log_loss < before.log_loss and after.brier < before.brier
    assert fit_temperature([1.0, 2.0]) is None  # right on every pair
    assert fit_temperature([1.0, -2.0]) is None  # no better than chance


def test_calibration_by_hand():
    # Margins log 3, log 3, -log 3, log 3: confidence 3/4 each, right three times in four.
    result = pair_calibration([math.log(3)] * 3 + [-math.log(3)], bins=1)
    assert result.bins[0].confidence == pytest.approx(0.75)
    assert result.bins[0].accuracy.value == 0.75 and result.ece == pytest.approx(0)
    assert result.brier == pytest.approx((3 * 0.25**2 + 0.75**2) / 4)
    assert result.log_loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)


def test_contradictions():
    prompts = ["p"] * 5 + ["q"]
    chosen = ["a", "b", "a", "b", "c", "b"]
    rejected = ["b", "a", "c", "d", "e", "a"]
    found = contradictions(prompts, chosen, rejected)
    assert found.opposite == [(0, 1)] and found.cycles == []  # q's opposite is another prompt's
    circle = contradictions(["p"] * 4, ["a", "b", "c", "a"], ["b", "c", "a", "d"])
    assert circle.opposite == [] and circle.cycles == [[0, 1, 2]]


def test_suspicious_labels_are_the_flipped_ones():
    draw = np.random.default_rng(1)
    sure = 1 / (1 + np.exp(-np.abs(draw.normal(size=1000)) * 4))
    flipped = np.zeros(1000, dtype=bool)
    flipped[:50] = True
    found = suspicious_labels(np.where(flipped, 1 - sure, sure))
    hits = sum(flipped[n] for n in found.numbers)
    assert hits == len(found.numbers) > 25
    assert suspicious_labels([]).numbers == []
    # The mean is 0.75: 0.55 against the label of the third is no more than doubt.
    assert suspicious_labels([0.9, 0.9, 0.45]).numbers == []
    # The mean is 0.725, and 0.9 against the third.
    assert suspicious_labels([0.95, 0.9, 0.1, 0.95]).numbers == [2]


def test_what_is_worth_labeling_comes_first():
    order, worth = worth_labeling([0.99, 0.5, 0.7, 0.01], [False, False, False, True], 3)
    assert order == [1, 3, 2]
    assert worth[1] == worth[3] == pytest.approx(math.log(2))


def test_agreement_with_people_by_hand():
    votes = [["a", "a", "b"], ["b", "b"], ["tie", "a"], []]
    # The model says a, a, a. Agreement with a person: 2/3, 0, (1/2 + 1) / 2 = 3/4.
    # Between people: 1 of 3, 1, 1/2.
    result = agreement(votes, [1.0, 2.0, 0.5, 1.0], 3, seed=0)
    assert result.pairs == 3
    assert result.model.value == pytest.approx((2 / 3 + 0 + 3 / 4) / 3)
    assert result.between_people.value == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)
    assert result.gap == pytest.approx(result.model.value - result.between_people.value)
    assert majority(["a", "b"]) is None and majority(["a", "a", "b"]) == "a"
    record = {"annotator1": 1, "annotator2": 0, "annotator3": None, "idx": 1}
    assert columns_of_people(record) == ["annotator1", "annotator2"]
    assert votes_in(record, ["annotator1", "annotator2", "annotator3"]) == ["a", "tie"]


def test_over_optimization_finds_where_gold_turns():
    draw = np.random.default_rng(0)
    quality, hack = draw.normal(size=(2, 40, 256))
    curve = over_optimization(quality + 1.5 * hack, quality - np.maximum(hack, 0) ** 2, seed=0)
    assert curve.drop_high < 0 and curve.safe_kl == curve.peak.kl < curve.points[-1].kl
    honest = over_optimization(quality + 0.1 * hack, quality, seed=0)
    assert honest.rises and honest.drop_high >= 0 and honest.safe_kl == honest.points[-1].kl
    assert honest.fit["r_squared"] > 0.9
    assert honest.points[-1].n == 256 and sizes_up_to(1500)[-1] == 1024 and sizes_up_to(6)[-1] == 6
