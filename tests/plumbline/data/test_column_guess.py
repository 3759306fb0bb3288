"""A table of no known format: the message has the mapping to give."""

from __future__ import annotations

import pytest

from plumbline.data.column_guess import columns_to_give, guess_columns
from plumbline.data.formats import why_unknown
from plumbline.data.uses import USES
from preference.pairs_config import PreferenceFileConfig
from preference.sources import read_preferences


@pytest.mark.parametrize(
    ("names", "use", "guessed"),
    [
        (["id", "Question", "better_answer", "worse_answer"], "preferences",
         {"prompt": "Question", "chosen": "better_answer", "rejected": "worse_answer"}),
        (["userQuery", "modelOutput"], "demonstrations",
         {"prompt": "userQuery", "response": "modelOutput"}),
        (["x", "y"], "preferences", {}),
        (["question", "prompt", "step_labels", "steps"], "steps",
         {"prompt": "prompt", "steps": "steps", "step_labels": "step_labels"}),
        (["question", "answer"], "prompts", {"prompt": "question"}),
        (["goodbye", "text"], "preferences", {}),
    ],
)  # fmt: skip
def test_names_tell_what_a_column_holds(names, use, guessed):
    assert guess_columns(names, USES[use]) == guessed


def test_the_sentence_can_be_copied():
    said = columns_to_give(["q", "better", "worse"], USES["preferences"])
    assert "probably columns: {prompt: COLUMN, chosen: better, rejected: worse}" in said
    assert "--columns prompt=COLUMN,chosen=better,rejected=worse" in said


def test_a_reader_says_it_and_it_works(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("Question,better_answer,worse_answer\nWho?,Me.,You.\n")
    rows, report = read_preferences(file)
    (reason,) = report.dropped.reasons()
    mapping = "prompt=Question,chosen=better_answer,rejected=worse_answer"
    assert rows == [] and f"--columns {mapping}" in reason
    columns = dict(pair.split("=") for pair in mapping.split(","))
    rows, _ = read_preferences(file, PreferenceFileConfig(columns=columns))
    assert rows[0]["chosen"][0]["content"] == "Me."


def test_a_table_of_another_format_is_told_its_mapping_too():
    said = why_unknown({"question": "q", "better": "a", "worse": "b"}, USES["preferences"])
    assert said.startswith("is of the format question_answer and has no chosen and no rejected")
    assert "--columns prompt=question,chosen=better,rejected=worse" in said
