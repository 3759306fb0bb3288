"""Comparing what a run has made: again, with other tools' samples, and while it goes on."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from evaluation.comparison.page_content import run_content
from evaluation.comparison.recipe_runs import training_runs_in
from evaluation.sample_files import read_samples
from plumbline.commands.app import app
from plumbline.runs.run import RunRecord

pytestmark = pytest.mark.slow


def test_a_run_compared_again_says_the_same_to_the_last_digit(finished, tmp_path):
    ours = json.loads((finished / "small" / "summary.json").read_text())
    arguments = ["compare", "small", "--home", str(finished), "--out", str(tmp_path / "again")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    for key in ("verdict", "contrasts", "methods", "frontier", "ranking"):
        assert again[key] == ours[key], key


def test_samples_of_another_tool_are_scored_by_the_runs_own_judges(finished, tmp_path):
    record = RunRecord(finished / "small")
    rows = read_samples(record.artifacts["evaluation/dpo/seed-0"])
    file = tmp_path / "theirs.jsonl"
    with file.open("w") as lines:
        for row in rows:
            given = {"prompt": row["prompt"], "response": row["response"], "model": "theirs"}
            lines.write(json.dumps(given) + "\n")
    arguments = ["compare", "small", "--samples", str(file), "--home", str(finished)]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "r"), "--budget", "none"])
    assert result.exit_code == 0, result.output
    methods = json.loads((tmp_path / "r" / "summary.json").read_text())["methods"]
    # The very answers of DPO under another name: the same judges give the same scores.
    for scorer in ("gold", "reward"):
        assert methods["theirs"]["0"][f"{scorer}_mean"] == pytest.approx(
            methods["dpo"]["0"][f"{scorer}_mean"], abs=1e-5
        )


def test_costs_settings_and_lineage_come_from_the_artifacts(finished):
    content = run_content(finished, "small")
    costs = {row["method"]: row for row in content["costs"]}
    assert costs["ppo"]["responses"] == 4 * 16
    assert costs["dpo"]["responses"] == 2 * 8 * costs["dpo"]["steps"]
    assert costs["ppo"]["tokens"] > 0 and costs["dpo"]["seconds"] > 0
    assert "evaluation/ppo/seed-1" in {row["stage"] for row in content["lineage"]}
    checkpoints = [p for p in content["policies"] if p["method"] == "ppo" and p["seed"] == "0"]
    # Four rounds, of two passes over two minibatches each.
    assert [p["costs"]["steps"] for p in checkpoints] == [0, 8, 16]


def test_a_run_that_has_not_finished_shows_what_there_is(copied):
    home = copied
    state_file = home / "small" / "run.json"
    state = json.loads(state_file.read_text())
    # As it was while PPO's last seed trained: its files lie where they are being made.
    made = state["stages"]
    policy = made.pop("ppo/seed-1")["artifact"]
    for name in ("evaluation/ppo/seed-1", "report"):
        del made[name]
    partial = home / "store" / ".partial" / policy
    partial.mkdir(parents=True)
    (home / "store" / policy).rename(partial / "out")
    (partial / "out" / "manifest.json").unlink()
    state |= {"status": "running", "stage": "ppo/seed-1", "making": policy}
    state_file.write_text(json.dumps(state))

    runs, _ = training_runs_in(RunRecord(home / "small"))
    assert [run.name for run in runs if not run.is_finished] == ["ppo, seed 1"]
    content = run_content(home, "small")
    headline = content["headline"]
    assert headline["so_far"]
    assert headline["missing"][0].startswith("PPO, seed 1: in training, evaluated at step")
    assert not [flag for flag in content["flags"] if flag["level"] == "warning"]
    assert any(p["id"].startswith("ppo/1/") for p in content["policies"])
