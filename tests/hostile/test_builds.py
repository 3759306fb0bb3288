"""Builds of datasets: a wrong config is refused with the place, a wrong row is counted."""

from __future__ import annotations

import json

import pytest

from plumbline.data.records import assistant, user
from plumbline.data.sources import source_at
from plumbline.dropped import Dropped
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.build import build_dataset
from sft.build.config import BuildConfig
from sft.sources import FileDemonstrations

GOOD = "name: mine\nsources: [{path: rows.jsonl}]\n"
CONFIGS = [
    ("", 2, "'name' must be set"),
    ("name: mine\n", 2, "sources is empty"),
    ("name: ../up\nsources: [{path: rows.jsonl}]\n", 2, "name is"),
    ("name: ''\nsources: [{path: rows.jsonl}]\n", 2, "name is"),
    (f"name: {'x' * 300}\nsources: [{{path: rows.jsonl}}]\n", 2, "name is"),
    ("name: mine\nsources: rows.jsonl\n", 2, "sources is"),
    ("name: mine\nsources: [rows.jsonl]\n", 2, "sources"),
    ("name: mine\nsources: [{}]\n", 2, "path"),
    ("name: mine\nsources: [{path: nowhere.jsonl}]\n", 3, "There is no file nowhere.jsonl"),
    ("name: mine\nsources: [{path: rows.jsonl, weight: -1}]\n", 2, "weight"),
    ("name: mine\nsources: [{path: rows.jsonl, weight: .inf}]\n", 2, "weight"),
    ("name: mine\nsources: [{path: rows.jsonl, weight: .nan}]\n", 2, "weight"),
    ("name: mine\nsources: [{path: rows.jsonl, format: alpacca}]\n", 2, "there is no data format"),
    ("name: mine\nsources: [{path: rows.jsonl, split: dev}]\n", 2, "split"),
    ("name: mine\nsources: [{path: rows.jsonl, split: test}]\n", 2, "nothing would be trained on"),
    ("name: mine\nsources: [{path: rows.jsonl, keep: [row]}]\n", 2, "a column of the build's own"),
    ("name: mine\nsources: [{path: rows.jsonl, tier: ''}]\n", 2, "tier"),
    (f"{GOOD}steps: {{}}\n", 2, "steps is"),
    (f"{GOOD}steps: [null]\n", 2, "step 1 is None"),
    (f"{GOOD}steps: [[]]\n", 2, "step 1 is []"),
    (f"{GOOD}steps: [{{step: 3}}]\n", 2, "step 1 is"),
    (f"{GOOD}steps: [unicode, lenght]\n", 2, "Did you mean 'length'?"),
    (f"{GOOD}steps: [{{step: length, max_characters: 0}}]\n", 2, "max_characters is 0"),
    (f"{GOOD}steps: [{{step: language, keep: en}}]\n", 2, "keep is 'en'"),
    (f"{GOOD}steps: [{{step: repetition, max_repeated_words: 2}}]\n", 2, "max_repeated_words is 2"),
    (f"{GOOD}steps: [{{step: near_duplicates, threshold: 0}}]\n", 2, "threshold is 0"),
    (f"{GOOD}steps: [{{step: contamination}}]\n", 2, "'against' must be set"),
    (f"{GOOD}steps: [{{step: contamination, against: []}}]\n", 2, "against is []"),
    (f"{GOOD}steps: [{{step: contamination, against: [no.jsonl]}}]\n", 3, "no.jsonl"),
    (f"{GOOD}steps: [{{step: quality, min_score: 1}}]\n", 2, "'scorer' must be set"),
    (f"{GOOD}steps: [no_such_module.function]\n", 2, "cannot be imported"),
    (f"{GOOD}splits: {{held_out_share: 1}}\n", 2, "held_out_share is 1"),
    (f"{GOOD}mixture: {{tiers: {{base: -1}}}}\n", 2, "shares of tiers"),
    (f"{GOOD}mixture: {{tiers: {{}}}}\n", 2, "shares of tiers"),
    (f"{GOOD}mixture: {{order: longest}}\n", 2, "no order of rows 'longest'"),
    (f"{GOOD}data_seed: -1\n", 2, "data_seed is -1"),
    (f"{GOOD}workers: many\n", 2, "workers is 'many'"),
    (f"{GOOD}seeds: 3\n", 2, "there is no setting 'seeds'"),
]


@pytest.mark.parametrize(("text", "code", "words"), CONFIGS)
def test_a_wrong_config_of_a_build_is_refused(attempt, tmp_path, monkeypatch, text, code, words):
    monkeypatch.chdir(tmp_path)
    row = {"messages": [user("Name a colour"), assistant("Red")]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "build.yaml").write_text(text)
    attempt("data", "build", "build.yaml", "--home", "runs").refused(code, words)


TALK = [{"role": "user", "content": "Name a colour"}, {"role": "assistant", "content": "Red"}]
ROWS = [
    ("not JSON", "{"),
    ("no object", "[1, 2]"),
    ("null", "null"),
    ("no dialogue", "{}"),
    ("messages of text", json.dumps({"messages": "hello"})),
    ("no messages", json.dumps({"messages": []})),
    ("messages of null", json.dumps({"messages": None})),
    ("a turn of null", json.dumps({"messages": [None, TALK[1]]})),
    ("a role of nobody", json.dumps({"messages": [{"role": "robot", "content": "a"}, TALK[1]]})),
    ("a content of a number", json.dumps({"messages": [{"role": "user", "content": 3}, TALK[1]]})),
    ("an empty answer", json.dumps({"messages": [TALK[0], {"role": "assistant", "content": " "}]})),
    ("control characters alone", json.dumps({"messages": [TALK[0], assistant("\x00\x07")]})),
    ("invisible characters alone", json.dumps({"messages": [TALK[0], assistant("\u200b\ufeff")]})),
    ("no answer", json.dumps({"messages": TALK[:1]})),
    ("no question", json.dumps({"messages": TALK[1:]})),
    ("the user last", json.dumps({"messages": [*TALK, TALK[0]]})),
    ("an image", json.dumps({"messages": TALK, "images": ["a.jpg"]})),
    ("a part that is an image",
     json.dumps({"messages": [{"role": "user", "content": [{"type": "image"}]}, TALK[1]]})),
    ("half a weight", json.dumps({"messages": TALK, "weight": 0.5})),
    ("a label that is false", json.dumps({"messages": TALK, "label": False})),
    ("weights of zero", json.dumps({"messages": [TALK[0], TALK[1] | {"weight": 0}]})),
    ("a call without a name",
     json.dumps({"messages": [TALK[0], {"role": "assistant", "tool_calls": [{"function": {}}]}]})),
    ("reasoning of a number", json.dumps({"messages": [TALK[0], TALK[1] | {"reasoning": 4}]})),
    ("too long", json.dumps({"messages": [TALK[0], assistant("long " * 5000)]})),
    ("deep", '{"messages": ' + "[" * 200 + "]" * 200 + "}"),
    ("two system messages with a column beside them",
     json.dumps({"messages": [{"role": "system", "content": "A"}, *TALK], "system": "B"})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "line"), ROWS, ids=[name for name, _ in ROWS])
def test_a_wrong_row_of_a_build_is_counted_with_its_reason(tmp_path, name, line):
    good = [{"messages": [user(f"Name {n} colours"), assistant(f"Red {n}")]} for n in range(60)]
    lines = [*map(json.dumps, good[:30]), line, *map(json.dumps, good[30:])]
    (tmp_path / "rows.jsonl").write_text("".join(f"{entry}\n" for entry in lines))
    config = BuildConfig(
        name="mine", sources=[{"path": "rows.jsonl"}], splits={"held_out_share": 0.3}
    )
    stage = Stage(tmp_path / "stage", Reporter(quiet=True))
    metrics = build_dataset(
        stage,
        config=config.cleaning(),
        sources=[FileDemonstrations(source_at(tmp_path / "rows.jsonl"))],
        data_seed=0,
    )
    assert metrics["train_rows"] + metrics["test_rows"] == 60
    (row,) = Dropped.read(stage.folder).rows
    assert (row["origin"], row["row"]) == ("rows.jsonl", 31)
    assert len(row["reason"]) > 8 and "NoneType" not in row["reason"], row
