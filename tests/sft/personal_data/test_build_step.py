"""Masking and encryption as parts of a build."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("phonenumbers")

from plumbline.config import load
from plumbline.data.encryption import KEY_FILE_VARIABLE, KEY_VARIABLE, data_key, new_key
from plumbline.data.records import read_dataset
from plumbline.errors import ConfigError
from plumbline.runs.calls import resolve
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.build import build_dataset
from sft.build.config import BuildConfig
from sft.personal_data.mask import COLUMN, unmask_row
from sft.personal_data.step import PersonalDataStep, check_masking
from sft.versions.export import EXPORT_FORMATS

CONFIG = """\
name: people
sources: [{{path: {source}}}]
steps: [unicode, roles, {{step: personal_data, reversible: true}}, exact_duplicates]
splits: {{held_out_share: 0.3}}
encrypt: true
"""


def build(folder, source):
    folder.mkdir()
    (folder / "build.yaml").write_text(CONFIG.format(source=source))
    config = load(BuildConfig, folder / "build.yaml")
    stage = Stage(folder / "stage", Reporter(quiet=True))
    build_dataset(stage, config=config.cleaning(), sources=resolve(config.opened()), data_seed=0)
    return stage.folder


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"Question {n} of p{n}@x.org", "completion": f"Call 1380013{8000 + n}."}
        for n in range(20)
    ]
    rows += [rows[0], {"prompt": "Whose is q@x.org?", "completion": ""}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_build_masks_and_encrypts_and_equal_builds_are_equal(tmp_path, monkeypatch, source):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(tmp_path / "key"))
    new_key(tmp_path / "key")
    one, two = build(tmp_path / "1", source), build(tmp_path / "2", source)
    files = sorted(file.name for file in one.iterdir())
    assert [name for name in files if name.endswith((".parquet", ".jsonl"))] == []
    for file in one.iterdir():
        content = file.read_bytes()
        assert content == (two / file.name).read_bytes()
        assert b"x.org" not in content
    rows = [row for split in ("train", "test") for row in read_dataset(one, split)]
    assert len(rows) == 20
    assert {row["messages"][1]["content"] for row in rows} == {"Call [PHONE_1]."}
    restored = {unmask_row(row, data_key())["messages"][0]["content"] for row in rows}
    assert restored == {f"Question {n} of p{n}@x.org" for n in range(20)}
    (tmp_path / "out").mkdir()
    EXPORT_FORMATS["parquet"].write(one, tmp_path / "out", "train")
    assert read_dataset(tmp_path / "out", "train") == read_dataset(one, "train")
    assert all(COLUMN in row for row in rows)
    report = json.loads((one / "build.json").read_text())
    changed = next(step for step in report["steps"] if step["step"] == "personal_data")["changed"]
    assert changed["email was masked"] == 21


def test_a_missing_key_is_said_before_work(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="No data key is set"):
        check_masking(PersonalDataStep(reversible=True))


def test_other_names_in_the_same_file_are_another_build(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("Ann Lee\n")
    before = PersonalDataStep(names=file).identity()
    file.write_text("Ann Lee\nBob Roy\n")
    assert PersonalDataStep(names=file).identity() != before
