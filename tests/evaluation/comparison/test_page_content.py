"""Content and verdict: planted differences are found, and nothing is claimed beyond them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from evaluation.comparison.budget_matching import BudgetConfig
from evaluation.comparison.page_content import comparison_content, waiting_content
from evaluation.comparison.training_runs import Baseline, CheckpointEval


@pytest.fixture
def build_content(make_training, make_responses):
    def make(dpo=(0.0, 0.5, 1.0), ppo=(0.0, 0.5, 1.0), noise=0.05, seeds=4, **more):
        runs = [
            make_training(method, seed, gains, noise=noise, prompts=40)
            for method, gains in (("dpo", dpo), ("ppo", ppo))
            for seed in range(seeds)
        ]
        start = CheckpointEval(0, make_responses([n / 39 for n in range(40)]))
        baseline = Baseline("sft", "SFT", start)
        arguments = {"title": "t", "judge": "gold", "baseline": baseline} | more
        return comparison_content(runs, **arguments)

    return make


def row(content, at, scorer="gold"):
    return next(r for r in content["contrasts"] if r["at"] == at and r["scorer"] == scorer)


def test_a_planted_difference_is_found_at_both_points(build_content):
    content = build_content(ppo=(0.0, 0.9, 1.8))
    for at in ("matched", "final"):
        found = row(content, at)
        assert (found["a"], found["b"]) == ("dpo", "ppo")
        assert found["low"] < -0.8 < found["high"] and found["p_adjusted"] < 0.001
    assert "At a matched budget (4 nats" in content["verdict"][0]
    assert "ppo is significantly better than dpo, by 0.8" in content["verdict"][0]


def test_equal_responses_are_ties_whatever_the_rounding_of_their_scores(make_training):
    """A policy before training says what its start says; a scorer's last bits are not a result."""
    (start,) = make_training("sft", 0, (0.0,), (0.0,), noise=0.0, prompts=40).checkpoints
    rounded = [
        row | {"gold": row["gold"] + (1e-6 if n % 3 else -1e-6)} for n, row in enumerate(start.rows)
    ]
    run = replace(make_training("ppo", 0, (0.0,), (0.0,), noise=0.0, prompts=40),
                  checkpoints=[replace(start, rows=rounded)])  # fmt: skip
    other = replace(run, method="dpo",
                    checkpoints=[replace(start, rows=start.rows)])  # fmt: skip
    content = comparison_content(
        [run, other], title="t", judge="gold", baseline=Baseline("sft", "SFT", start)
    )
    rates = [line["win_rate"] for line in content["leaderboard"]]
    assert rates == [0.5, 0.5, 0.5]
    assert row(content, "final")["win_rate"] == 0.5
    # Scores that are further apart are somebody's judgements, and decide.
    better = [line | {"gold": line["gold"] + 0.5} for line in start.rows]
    run = replace(run, checkpoints=[replace(start, rows=better)])
    content = comparison_content([run, other], title="t", judge="gold")
    assert row(content, "final")["win_rate"] == 1.0


def test_where_there_is_no_difference_the_power_is_stated(build_content):
    content = build_content()
    found = row(content, "final")
    assert found["p_adjusted"] > 0.05 and 0 < found["detectable"] < 0.2
    assert "do not show a significant difference between dpo and ppo" in content["verdict"][1]
    assert (
        f"this design would detect a difference of {found['detectable']:.2f}"
        in content["verdict"][1]
    )


def test_matching_takes_out_an_advantage_that_is_only_kl(make_training):
    # PPO goes along the very same frontier, but twice as far in √KL.
    trained = [make_training("dpo", s, noise=0.05, prompts=40) for s in range(4)]
    trained += [
        make_training("ppo", s, (0.0, 1.0, 2.0), (0.0, 4.0, 16.0), noise=0.05, prompts=40)
        for s in range(4)
    ]
    content = comparison_content(trained, title="t", judge="gold")
    assert row(content, "matched")["low"] < 0 < row(content, "matched")["high"]
    assert row(content, "final")["difference"] == pytest.approx(-1.0, abs=0.1)


def test_frontier_has_bands_area_and_start(build_content):
    content = build_content(noise=0.0)
    line = next(f for f in content["frontier"] if (f["method"], f["scorer"]) == ("ppo", "gold"))
    assert line["points"][0]["mean"] == pytest.approx(0.5)
    assert line["points"][-1]["kl"] == pytest.approx(4.0)
    assert line["points"][-1]["mean"] == pytest.approx(1.5)
    # √KL from 0 to 2 and a gain that rises evenly along it: the mean is half way.
    assert line["area"] == pytest.approx(1.0)


def test_one_seed_says_so(build_content):
    content = build_content(seeds=1)
    assert "not other training seeds" in content["verdict"][-1]


def test_wins_against_the_start_are_stated(build_content):
    content = build_content()
    assert any("ppo wins against SFT on 100% of prompts" in s for s in content["verdict"])
    final = next(p for p in content["policies"] if p["final"] and p["method"] == "ppo")
    assert final["metrics"]["gold_win_rate"] == 1.0
    assert final["metrics"]["gold_win_rate_low"] > 0.9


def test_ranking_puts_the_better_first_and_the_start_last(build_content):
    names = [ranked["name"] for ranked in build_content(ppo=(0.0, 0.9, 1.8))["ranking"]]
    assert names == ["ppo", "dpo", None]


def test_subsets_are_shown_where_answers_have_them(make_training):
    one, other = make_training("dpo"), make_training("ppo", gains=(0, 1, 2))
    for trained in (one, other):
        for look in trained.checkpoints:
            for number, answer in enumerate(look.rows):
                answer["subset"] = "odd" if number % 2 else "even"
    found = comparison_content([one, other], title="t", judge="gold")["subsets"]
    assert [(r["subset"], r["prompts"]) for r in found] == [("even", 6), ("odd", 6)]
    cells = found[0]["cells"]
    assert cells["ppo"]["mean"] - cells["dpo"]["mean"] == pytest.approx(1.0)


def test_samples_align_with_prompts_and_every_look_has_its_column(build_content):
    samples = build_content()["samples"]
    assert len(samples["prompts"]) == 40
    assert samples["policies"][0] == "baseline" and len(samples["policies"]) == 1 + 8 * 3
    assert all(len(column) == 40 for column in samples["responses"].values())
    third = samples["prompts"][3]["messages"][0]["content"].split()[-1]
    assert samples["responses"]["ppo/0/20"][3]["text"].endswith(f"to {third}")


def test_no_budget_compares_at_the_end_alone(build_content):
    content = build_content(budget=BudgetConfig(by="none"))
    assert {r["at"] for r in content["contrasts"]} == {"final"}
    assert content["design"]["budget"] is None


def test_the_same_question_twice_has_the_same_answer(build_content):
    assert build_content() == build_content()


def test_many_methods_are_summed_up(make_training):
    trained = [
        make_training(f"m{n}", seed, noise=0.05, prompts=30) for n in range(5) for seed in range(2)
    ]
    sentences = comparison_content(trained, title="t", judge="gold")["verdict"]
    assert any("of 10 pairs" in sentence for sentence in sentences)
    assert len(sentences) < 12


def test_the_audit_of_the_reward_model_is_shown(tmp_path):
    from evaluation.comparison.page_content import _reward_model
    from plumbline.runs.artifacts import write_json

    class Made:
        def __init__(self, kind, metrics=None):
            self.path, self.kind, self.metrics = tmp_path, kind, metrics or {}

    verdict = {"headline": "Fit.", "kl": "Up to 3.", "weaknesses": ["w"], "open_questions": []}
    write_json(tmp_path / "audit.json", {"verdict": verdict})
    stages = {"reward": Made("reward-model", {"accuracy": 0.7})}
    assert _reward_model(stages)["audit"] is None
    assert _reward_model(stages | {"audit": Made("reward-audit")})["audit"] == verdict


@pytest.mark.parametrize(
    ("status", "so_far", "title"),
    [("running", True, "Nothing to compare yet"), ("finished", False, "Nothing to compare")],
)
def test_a_run_that_evaluates_no_policy_does_not_wait_for_a_verdict(
    tmp_path, status, so_far, title
):
    record = SimpleNamespace(
        artifacts={}, making=[], folder=tmp_path, status=status, planned=[], state={"stages": {}}
    )
    head = waiting_content(record)["headline"]
    assert (head["so_far"], head["title"]) == (so_far, title)
    assert ("so far" in head["margin"][0]) == so_far
