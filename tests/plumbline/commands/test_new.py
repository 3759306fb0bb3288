"""A recipe to start from runs as it is written."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.commands.recipe_book import find
from plumbline.errors import ArtifactError, ConfigError
from plumbline.runs.run import RunRecord


def plumbline(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_name_that_is_taken_or_impossible_is_refused(tmp_path):
    plumbline("new", "recipe", "mine", "--folder", tmp_path)
    with pytest.raises(ArtifactError, match="exists"):
        plumbline("new", "recipe", "mine", "--folder", tmp_path)
    with pytest.raises(ConfigError, match="my_recipe"):
        plumbline("new", "recipe", "my-recipe", "--folder", tmp_path)


def test_what_is_written_is_a_recipe_with_a_config(tmp_path):
    said = plumbline("new", "recipe", "mine", "--folder", tmp_path)
    assert f"plumbline run {tmp_path / 'mine.py'} --config mine" in said
    recipe = find(str(tmp_path / "mine.py"))
    config = recipe.load("mine", [])
    assert (config.dpo.beta, config.sft.tuning.method) == (0.1, "lora")
    assert "fine-tune a model on demonstrations" in recipe.summary


@pytest.mark.slow
def test_it_runs(tmp_path, base_folder):
    plumbline("new", "recipe", "mine", "--folder", tmp_path)
    rows = [{"prompt": f"Thing {n}?", "response": f"{n % 5}."} for n in range(40)]
    pairs = [{"prompt": f"Thing {n}?", "chosen": f"{n % 5}.", "rejected": "No."} for n in range(40)]
    for name, lines in (("demonstrations", rows), ("preferences", pairs)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"{name}.jsonl").write_text(text)
    plumbline(
        "run", tmp_path / "mine.py", "--config", "mine", "--home", tmp_path / "home",
        "--set", f"demonstrations_file={tmp_path / 'demonstrations.jsonl'}",
        "--set", f"preferences_file={tmp_path / 'preferences.jsonl'}",
        "--set", f"base.name_or_path={base_folder}", "--sft.max_length", "120",
        "--dpo.max_length", "120", "--evaluation.prompts", "4",
        "--evaluation.prompts_during_training", "2",
        "--evaluation.sampling.max_new_tokens", "8", "--name", "mine",
    )  # fmt: skip
    made = RunRecord(tmp_path / "home" / "mine").artifacts
    assert set(made) == {"demonstrations", "preferences", "base", "sft", "dpo"}
