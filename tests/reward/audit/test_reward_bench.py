"""RewardBench 1 and 2 by their own rules: files made here, with the scores worked by hand."""

from __future__ import annotations

import math

import pytest

from plumbline.errors import DataError
from reward.audit.reward_bench import Row2, credit, is_bench_1, score_1, score_2, ties_score


def test_bench_1_weighs_subsets_within_sections():
    rows = [
        ("alpacaeval-easy", 2.0, 1.0), ("alpacaeval-easy", 1.0, 2.0),  # 1/2, counts 100
        ("mt-bench-med", 2.0, 1.0),  # 1, counts 40
        ("math-prm", 2.0, 1.0),  # 1, counts 984
        ("hep-cpp", 1.0, 1.0),  # a tie is wrong: 0, counts 164
    ]  # fmt: skip
    score = score_1(rows)
    chat = (0.5 * 100 + 1 * 40) / 140
    reasoning = 984 / (984 + 164)
    assert score.parts == pytest.approx({"Chat": chat, "Reasoning": reasoning})
    assert score.score == pytest.approx((chat + reasoning) / 2)
    assert "donotanswer" in score.missing and len(score.missing) == 23 - 4
    assert is_bench_1(["math-prm", "math-prm", None]) and not is_bench_1(["other"] * 3)
    with pytest.raises(DataError, match="No row is of a subset"):
        score_1([("other", 1.0, 0.0)])


def test_bench_2_credit_is_shared_at_the_top():
    assert credit([3, 1, 2, 0]) == 1
    assert credit([2, 2, 1, 0]) == 1 / 2
    assert credit([1, 1, 1, 1]) == 1 / 4  # a constant scorer
    assert credit([1, 2, 0, 0]) == 0


def test_ties_by_hand():
    rows = [
        Row2("ref:1", "Ties", [5.0, 1.0], 1),  # margin 4, accurate
        Row2("tied:1", "Ties", [5.0, 4.0, 2.0], 2),  # margin 2, spread 1, accurate
        Row2("ref:2", "Ties", [1.0, 2.0], 1),  # margin -1, not accurate
        Row2("tied:2", "Ties", [4.0, 1.0, 0.5], 2),  # margin 0.5, spread 3, accurate
    ]
    # accuracy: tied 1, ref 1/2. margin > spread: yes, no. min of both margins > spread: 2 > 1 yes,
    # -1 > 3 no. ratios: 2 / 1 and -1 / 3.
    ratio = (math.tanh(2 - 1) + math.tanh(-1 / 3 - 1)) / 2
    expected = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * ratio
    assert ties_score(rows) == pytest.approx(expected)
    with pytest.raises(DataError, match="neither ref:N nor"):
        ties_score([Row2("7", "Ties", [1.0, 0.0], 1)])


def test_bench_2_is_the_mean_of_its_subsets():
    rows = [
        Row2("1", "Math", [3.0, 1.0, 2.0, 0.0], 1),
        Row2("2", "Math", [0.0, 1.0, 2.0, 0.0], 1),
        Row2("3", "Focus", [1.0, 1.0, 0.0, 0.0], 1),
        Row2("ref:1", "Ties", [1.0, 0.0], 1),
        Row2("tied:1", "Ties", [1.0, 1.0, 0.0], 2),  # spread 0: no ratio
    ]
    score = score_2(rows)
    assert score.subsets == pytest.approx({"Math": 0.5, "Focus": 0.5, "Ties": 1.0})
    assert score.score == pytest.approx(2 / 3)
    assert score.missing == ["Factuality", "Precise IF", "Safety"]
