"""Versions of a dataset through the command line: log, diff, use, rollback, export, training."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from plumbline.commands.app import app
from plumbline.errors import DataError
from plumbline.runs.artifacts import read_json
from sft.versions.history import Dataset, find_version


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """Run a command as a user does; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, [*arguments, "--home", "runs"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return " ".join(result.stdout.split())

    return run


def write(folder, rows, steps="[unicode, roles, length, exact_duplicates]"):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "build.yaml").write_text(
        f"name: mine\nsources: [{{path: rows.jsonl, license: MIT}}]\nsteps: {steps}\n"
        "splits: {held_out_share: 0.2}\n"
    )


def rows_of(count):
    return [{"prompt": f"Question {n}?", "completion": f"Answer number {n}."} for n in range(count)]


def test_a_dataset_has_versions_that_can_be_compared_used_and_exported(tmp_path, shell):
    write(tmp_path, rows_of(40))
    shell("data", "build", "build.yaml")
    history = Dataset(tmp_path / "runs", "mine").history()
    assert [version.name for version in history.versions] == ["v1"]
    shell("data", "build", "build.yaml")  # the same again is the same version
    assert len(Dataset(tmp_path / "runs", "mine").history().versions) == 1

    # A second version: one row more, one changed, a shorter limit.
    rows = [*rows_of(40), {"prompt": "A new one?", "completion": "Yes."}]
    rows[3]["completion"] = "Another answer."
    rows[5]["completion"] = "x" * 500
    write(tmp_path, rows, "[unicode, roles, {step: length, max_characters: 200}]")
    shell("data", "build", "build.yaml", "--name", "second")
    log = shell("data", "log", "mine")
    assert "→ v2" in log and log.index("v2") < log.index("v1")

    difference = shell("data", "diff", "mine", "v1", "v2")
    assert "mine v1 → v2" in difference
    assert "Another answer." in difference and "Yes." in difference
    assert "left out 0 → 1: is longer than max_characters (200)" in difference
    assert "setting steps[3].max_characters: 8000 → 200" in difference
    added = sum(int(n) for n in re.findall(r"added (\d+) rows", difference))
    removed = sum(int(n) for n in re.findall(r"removed (\d+) rows", difference))
    assert (added, removed) == (2, 2)  # rows 4 and 41 new; rows 4 and 6 as they were gone
    assert "the same" in shell("data", "diff", "mine", "v2", "2")

    assert "mine is now v1" in shell("data", "use", "mine", "v1")
    assert "mine is v2 again" in shell("data", "rollback", "mine")
    home = tmp_path / "runs"
    assert find_version(home, "mine").id == Dataset(home, "mine").history().versions[1].artifact
    assert find_version(home, "mine@v1").id == Dataset(home, "mine").history().versions[0].artifact
    assert find_version(home, "other") is None

    shell("data", "export", "mine@v1", "plain")
    exported = [json.loads(line) for line in (tmp_path / "plain/train.jsonl").open()]
    assert len(exported) == Dataset(home, "mine").history().versions[0].train_rows
    assert set(exported[0]) == {"messages", "form", "origin", "row", "tier"}
    shell("data", "export", "mine", "sharegpt", "--format", "sharegpt")
    turns = json.loads((tmp_path / "sharegpt/train.json").read_text())[0]["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt"]


def test_what_cannot_be_done_is_refused_with_what_there_is(tmp_path, shell):
    with pytest.raises(DataError, match="There is no dataset 'mine'"):
        shell("data", "log", "mine")
    write(tmp_path, rows_of(20))
    shell("data", "build", "build.yaml")
    with pytest.raises(DataError, match="has no version 'v7'; it has v1"):
        shell("data", "use", "mine", "v7")
    with pytest.raises(DataError, match="nothing to return to"):
        shell("data", "rollback", "mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    with pytest.raises(DataError, match="is there already"):
        shell("data", "export", "mine", "full")
    file = tmp_path / "runs/datasets/mine.json"
    content = read_json(file)
    file.write_text(json.dumps(content | {"file_version": 9}))
    with pytest.raises(DataError, match="has version 9"):
        shell("data", "log", "mine")
    file.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        shell("data", "log", "mine")
