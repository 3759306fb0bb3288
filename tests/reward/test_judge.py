"""A generative judge: judgments in both orders, verdicts by probability, and the recipe."""

from __future__ import annotations

import json
import math

import pytest

from plumbline.commands.recipe_book import execute, find
from plumbline.data.records import assistant, user, write_dataset
from plumbline.lm.policy import Policy
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.progress import Reporter
from reward.judge.judgments import judge_question, judgments
from reward.judge.local import LocalJudge
from reward.scorers.both_orders import BothOrdersScorer


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def test_a_preference_is_two_judgements(tmp_path):
    row = {
        "prompt": [user("Hi")], "chosen": [assistant("Good day.")], "rejected": [assistant("Yo.")]
    }  # fmt: skip
    write_dataset(tmp_path, {"train": [row]}, kind="preference", title="", description="")
    one, two = judgments(Folder(tmp_path))
    assert one["messages"] == [*judge_question(row["prompt"], "Good day.", "Yo."), assistant("1")]
    assert two["messages"] == [*judge_question(row["prompt"], "Yo.", "Good day."), assistant("2")]
    assert "user: Hi" in one["messages"][0]["content"]


def test_log_odds_are_those_of_the_replies(base_folder):
    judge = LocalJudge(base_folder)
    prompt = [user("Is it open?")]
    (odds,) = judge.log_odds([prompt], ["Yes."], ["No, never."])
    policy = Policy.load(base_folder)
    question = policy.encode(judge_question(prompt, "Yes.", "No, never."))
    end = policy.tokenizer.eos_token_id
    replies = [[*policy.tokenizer(r, add_special_tokens=False)["input_ids"], end] for r in "12"]
    one, two = (float(policy.logprobs_of([question], [reply]).sum()) for reply in replies)
    assert odds == pytest.approx(one - two, abs=1e-4)
    assert judge.compare(prompt, "Yes.", "No, never.") == ("first" if odds > 0 else "second")
    # A liking for a place cancels: the same two texts are as good as each other.
    assert judge.preference([prompt], ["Yes."], ["Yes."]) == pytest.approx([0.5], abs=1e-5)
    (swapped,) = judge.log_odds([prompt], ["No, never."], ["Yes."])
    expected = 1 / (1 + math.exp(-(odds - swapped) / 2))
    assert judge.preference([prompt], ["Yes."], ["No, never."]) == pytest.approx([expected])


@pytest.mark.slow
def test_the_recipe_trains_a_judge_that_scores_in_both_orders(base_folder, tmp_path):
    rows = [
        {"prompt": f"Thing {n}?", "chosen": f"It is {n}. Thank you!", "rejected": "No."}
        for n in range(120)
    ]
    file = tmp_path / "preferences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        f"model={base_folder}", f"data={file}", "sft.tuning.method=full",
        "sft.training.learning_rate=2e-3", "sft.training.epochs=5", "sft.max_length=200",
    ]  # fmt: skip
    run = execute(
        find("train_judge"), None, settings, tmp_path / "home", Reporter(quiet=True), "judge"
    )
    assert run.stages["accuracy"].metrics["accuracy"] > 0.9
    references = tmp_path / "references.jsonl"
    references.write_text(json.dumps({"prompt": "Thing 5?", "references": ["No."]}) + "\n")
    scorer = BothOrdersScorer(LocalJudge(run.stages["judge"]), SourceFile(references))
    (score,) = scorer.score([[user("Thing 5?")]], ["It is 5. Thank you!"])
    assert score >= 0.5
