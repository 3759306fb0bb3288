"""The headline: who won or that nobody did, by how much, and how far to trust it."""

from __future__ import annotations

import re

import pytest

from evaluation.comparison import page
from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.headline import leaders
from evaluation.comparison.page_content import comparison_content
from evaluation.comparison.training_runs import Baseline, CheckpointEval


@pytest.fixture
def content_of(make_training, make_responses):
    def make(gains, *, seeds=5, noise=0.05, baseline=True, **more):
        """Methods by name, each with its final gain over the baseline."""
        runs = [
            make_training(method, seed, (0.0, gain / 2, gain), noise=noise, prompts=40)
            for method, gain in gains.items()
            for seed in range(seeds)
        ]
        start = CheckpointEval(0, make_responses([n / 39 for n in range(40)]))
        arguments = {
            "title": "t",
            "judge": "gold",
            "baseline": Baseline("start", "start", start) if baseline else None,
        }
        return comparison_content(runs, **(arguments | more))

    return make


def test_the_better_of_two_is_named_with_its_lead(content_of):
    found = content_of({"a": 1.0, "b": 1.8})["headline"]
    assert found["title"] == "b is better than a" and not found["so_far"]
    assert found["margin"][0].startswith("It scores 0.8")
    assert "points of gold utility more than a at the same budget" in found["margin"][0]
    assert "Both win against start" in found["margin"][-1]
    assert found["basis"] == "40 prompts, 5 training seeds per method; the judge is gold utility."


def test_nobody_wins_where_the_difference_is_not_significant(content_of):
    found = content_of({"a": 1.0, "b": 1.0})["headline"]
    assert found["title"] == "No winner between a and b"
    # The higher one stands first, so that the interval has the sign of what is said.
    said = re.fullmatch(
        r"(a|b) scores 0\.0\d points of gold utility more than (a|b) at the same budget, which may "
        r"be chance \(95% interval −0\.\d\d to \+(0\.\d\d)\), and wins on (\d+)% of prompts\.",
        found["margin"][0],
    )
    assert said is not None and {said[1], said[2]} == {"a", "b"}, found["margin"][0]
    assert any("would often go unnoticed" in sentence for sentence in found["trust"])


def test_the_largest_of_many_differences_has_the_higher_one_first(content_of):
    made = content_of({"a": 1.0, "b": 1.003, "c": 1.0}, noise=0.3)
    said = made["headline"]["margin"][0]
    rows = [row for row in made["contrasts"] if row["scorer"] == "gold" and row["at"] == "matched"]
    largest = max(rows, key=lambda row: abs(row["difference"]))
    a, b = largest["a"], largest["b"]
    higher, lower = (a, b) if largest["difference"] > 0 else (b, a)
    shown = abs(largest["difference"])
    assert f"is {shown:.2f} points of gold utility, of {higher} over {lower}" in said


def test_single_models_have_words_of_their_own(make_training, tmp_path):
    runs = [make_training(name, 0, (1.0,), (1.0,), noise=0.3, prompts=40) for name in "ab"]
    made = comparison_content(
        runs, title="t", judge="gold", of_models=True, budget=BudgetConfig(by="none")
    )
    head = made["headline"]
    assert head["basis"] == "40 prompts; the judge is gold utility."
    made["costs"] = [{"method": row["method"]} for row in made["costs"]]  # nobody knows them
    page.write(made, tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert not re.search(r"\bseeds?\b", text), re.findall(r".*\bseeds?\b.*", text)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r'id="(seeds|cost)"|"#(seeds|cost)"', html)
    assert "Under the frontier" not in html and "end of training" not in html


@pytest.mark.parametrize(
    ("gains", "title"),
    [
        ({"a": 0.5, "b": 1.0, "c": 2.0}, "c is better than both others"),
        ({"a": 0.2, "b": 1.5, "c": 1.5}, "No single winner: b and c share the lead"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, "No winner: no two of the 3 differ"),
    ],
)
def test_three_methods(content_of, gains, title):
    assert content_of(gains)["headline"]["title"].startswith(title)


def contrast(a, b, difference, p=0.001):
    return {"a": a, "b": b, "difference": difference, "p_adjusted": p}


def test_leaders_are_those_that_nobody_beats():
    rows = [contrast("a", "b", 1.0), contrast("a", "c", 0.1, p=0.4), contrast("b", "c", -1.0)]
    assert leaders({"a": 0, "b": 0, "c": 0}, rows, 0.05) == ["a", "c"]
    circle = [contrast("a", "b", 1.0), contrast("b", "c", 1.0), contrast("c", "a", 1.0)]
    assert leaders({"a": 0, "b": 0, "c": 0}, circle, 0.05) == []


def test_one_method_against_the_baseline(content_of):
    found = content_of({"a": 1.0})["headline"]
    assert found["title"] == "a is better than start"
    assert found["margin"][0].startswith("a wins on 100% of prompts")
    assert content_of({"a": -1.0})["headline"]["title"] == "a is worse than start"
    assert content_of({"a": 0.0}, noise=0.3)["headline"]["title"] == "No winner between a and start"


def test_one_policy_alone_has_a_score_and_no_winner(content_of):
    found = content_of({"a": 1.0}, baseline=False)["headline"]
    assert found["title"] == "a scores 1.50 points of gold utility"
    assert "there is no other policy" in found["margin"][0]


def test_what_limits_the_result_is_said(content_of):
    one_seed = content_of({"a": 1.0, "b": 1.8}, seeds=1)["headline"]
    assert "One training per method: another seed may turn the result around." in one_seed["trust"]
    assert "1 training seed per method" in one_seed["basis"]
    few = content_of({"a": 1.0, "b": 1.8}, seeds=3)["headline"]
    assert any(sentence.startswith("3 seeds per method are few") for sentence in few["trust"])
    model = content_of({"a": 1.0, "b": 1.8}, judge="reward")["headline"]
    assert any("trained against this judge has an advantage" in s for s in model["trust"])


def test_longer_responses_that_win_by_length_are_pointed_out(make_training):
    a, b = (make_training(m, 0, (0.0,), (0.0,), prompts=200, noise=0.4) for m in "ab")
    for number, row in enumerate(b.final.rows):
        row["words"] = 4 + (number * 5) % 29  # the longer, the better
        row["gold"] += 0.08 * (row["words"] - 4)
    trust = comparison_content([a, b], title="t", judge="gold")["headline"]["trust"]
    assert any(s.startswith("Length matters: at equal length a wins against b") for s in trust)


def test_an_incomplete_design_has_results_so_far(content_of):
    found = content_of({"a": 1.0, "b": 1.8}, missing=["b, seed 5: not trained yet"])["headline"]
    assert found["so_far"] and found["missing"] == ["b, seed 5: not trained yet"]


def test_all_policies_are_ranked_by_their_wins(content_of):
    rows = content_of({"a": 0.3, "b": 1.8})["leaderboard"]
    assert [row["method"] for row in rows] == ["b", "a", None]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    best = rows[0]
    assert best["win_rate_low"] <= best["win_rate"] <= best["win_rate_high"]
    assert best["lc_win_rate"] == pytest.approx(best["win_rate"], abs=0.05)  # equal lengths
    assert best["kl"] == pytest.approx(4.0) and best["words"] == 4 and best["seconds"] == 10
    assert rows[-1]["win_rate"] == 0.5


def test_without_a_baseline_policies_are_ranked_by_score(content_of):
    rows = content_of({"a": 1.8, "b": 0.3}, baseline=False)["leaderboard"]
    assert [row["method"] for row in rows] == ["a", "b"]
    assert rows[0]["score"] == pytest.approx(2.3, abs=0.05) and "win_rate" not in rows[0]
