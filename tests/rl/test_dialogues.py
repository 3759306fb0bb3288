"""Judging dialogues: the same for the same policy, and a comparison prompt by prompt."""

from __future__ import annotations

import json

import pytest

from plumbline.data.records import assistant, user
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.artifacts import Artifact
from plumbline.world.customer import HelpDeskCustomer
from plumbline.world.gold import GoldUtility
from rl.dialogues import (
    DialogueJudge,
    compare_dialogues,
    dialogue_metrics,
    read_dialogues,
    write_dialogues,
)


@pytest.fixture
def judge(prompts):
    return DialogueJudge(
        SamplingConfig(max_new_tokens=12), prompts, HelpDeskCustomer(0), GoldUtility(0), data_seed=0
    )


def test_the_same_policy_has_the_same_dialogues(judge, policy, tmp_path):
    rows = judge.judge(policy)
    assert rows == judge.judge(policy)
    result = judge(policy, policy, 3, tmp_path / "looks")
    assert result["eval/score"] == pytest.approx(dialogue_metrics(rows)["score"])
    lines = (tmp_path / "looks" / "step-3.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows
    utility = GoldUtility(0)
    for row in rows:
        before, last = [*row["prompt"], *row["turns"][:-1]], row["turns"][-1]["content"]
        assert [row["score"]] == utility.score([before], [last])


def test_signs_that_end_lines_elsewhere_are_read_as_they_were_written(tmp_path):
    rows = [{"turns": [assistant(f"a{sign}b")], "score": 1.0} for sign in "\u2028\u2029\x85\r\n\v"]
    write_dialogues(tmp_path / "said.jsonl", rows)
    assert read_dialogues(tmp_path / "said.jsonl") == rows


def test_a_comparison_by_hand(stage, tmp_path):
    """Gains 1, 0 and 3: mean 4/3, std sqrt(7/3), standard error sqrt(7)/3; better 2 + 1/2 of 3."""

    def dialogues(name, scores, turns):
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            {
                "prompt_id": str(n),
                "prompt": [user("How much are the saws?")],
                "turns": [assistant("Five."), user("What?"), assistant("$5.")][:turns],
                "finished": n > 0,
                "score": score,
            }
            for n, score in enumerate(scores)
        ]
        write_dialogues(folder / "dialogues.jsonl", rows)
        return Artifact(folder)

    before, after = dialogues("before", [1, 2, 0], 1), dialogues("after", [2, 2, 3], 3)
    result = compare_dialogues(stage, before=before, after=after)
    assert result["gain"] == pytest.approx(4 / 3)
    assert result["gain_se"] == pytest.approx(7**0.5 / 3)
    assert result["better"] == pytest.approx(2.5 / 3)
    summary = json.loads((stage.folder / "summary.json").read_text())
    assert summary["before"]["turns"] == 1
    assert summary["after"]["turns"] == 2
    assert summary["after"]["finished"] == pytest.approx(2 / 3)
    assert "**user**: What?" in (stage.folder / "report.md").read_text()
