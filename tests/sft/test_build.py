"""Building a dataset: sources, splits, mixture, versions, and the same bytes however it is done."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from plumbline.config import load
from plumbline.data.records import assistant, prompt_id, read_dataset, user
from plumbline.errors import ConfigError, DataError, PlumblineError
from plumbline.runs.artifacts import read_json, sha256
from plumbline.runs.calls import describe, resolve
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from sft.build import build_dataset
from sft.build.config import BuildConfig
from sft.build.mixing import MixtureConfig, draw, portions
from sft.build.tables import schema_of, write_table
from sft.build.workers import map_in_order
from sft.sources import from_rows
from tests.recipes.killing import die_within_the_next_message


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def rows_of(count, start=0):
    """Rows of random words, which are no copies of each other."""
    generator = random.Random(start)
    return [
        {
            "prompt": f"Question {start + n}: {generator.random()}?",
            "completion": f"Answer {' '.join(str(generator.randrange(10**6)) for _ in range(9))}.",
        }
        for n in range(count)
    ]


def build(folder, text, workers=None):
    """Build from a config; return the folder of the dataset and its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.yaml").write_text(text)
    config = load(BuildConfig, folder / "build.yaml")
    cleaning = config.cleaning()
    if workers is not None:
        cleaning = cleaning.model_copy(update={"workers": workers})
    stage = Stage(folder / "stage", Reporter(quiet=True))
    metrics = build_dataset(
        stage,
        config=cleaning,
        sources=resolve(config.opened()),
        data_seed=config.data_seed,
        description=config.description(),
    )
    return stage.folder, metrics


EVERYTHING = """
name: mine
sources:
  - {{path: {folder}/a.jsonl, license: MIT}}
  - {{path: {folder}/b.jsonl, tier: hard, weight: 0.5}}
steps:
  - unicode
  - {{step: roles, order: strict}}
  - length
  - {{step: language, keep: [en]}}
  - repetition
  - refusals
  - exact_duplicates
  - near_duplicates
  - {{step: contamination, against: [{folder}/eval.jsonl]}}
mixture: {{order: short_first}}
data_seed: 3
"""


@pytest.fixture
def files(tmp_path):
    """Two sources with every kind of row, and an evaluation."""
    first = rows_of(2400)
    first[7:9] = [first[6], {"prompt": "Hi", "completion": "I'm sorry, but I can't help with it."}]
    first[20] = {"prompt": "x", "completion": "cafÃ© au lait is a drink of coffee with hot milk"}
    first[30] = {"text": "no prompt"}
    near = dict(first[40], completion=first[40]["completion"].replace("Answer", "Reply"))
    write(tmp_path / "a.jsonl", [*first, near])
    write(tmp_path / "b.jsonl", rows_of(600, start=10_000))
    question = "how many clips did natalia sell in april and may if she sold half as many in may"
    write(tmp_path / "eval.jsonl", [{"prompt": question, "references": ["72"]}])
    with (tmp_path / "b.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": f"So {question}?", "completion": "It is 72."}) + "\n")
    return tmp_path


def digests(folder):
    names = ("train.parquet", "test.parquet", "dropped.jsonl", "build.json", "README.md")
    return {name: sha256(folder / name) for name in names}


def test_a_build_is_the_same_with_one_and_two_processes(files):
    text = EVERYTHING.format(folder=files)
    one, metrics = build(files / "one", text, workers=1)
    two, _ = build(files / "two", text, workers=2)
    assert digests(one) == digests(two)
    report = read_json(one / "build.json")
    steps = {step["step"]: step for step in report["steps"]}
    assert steps["reading"]["rows_in"] == 3002
    assert steps["exact_duplicates"]["left_out"] == {"repeats an earlier row": 1}
    assert steps["near_duplicates"]["left_out"] == {"is a near copy of an earlier row": 1}
    assert steps["refusals"]["left_out"] == {"refuses, or speaks as a model": 1}
    assert steps["contamination"]["left_out"] == {"holds what the evaluation eval.jsonl asks": 1}
    assert steps["unicode"]["changed"]["text in a wrong encoding was repaired"] == 1
    for before, after in zip(report["steps"], report["steps"][1:], strict=False):
        if after["step"] not in ("held-out prompts", "mixture"):
            assert before["rows_out"] == after["rows_in"], (before, after)
    for source in report["sources"]:
        assert source["rows"] == source["kept"] + sum(source["left_out"].values())
    assert metrics["dropped_rows"] == sum(
        sum(source["left_out"].values()) for source in report["sources"]
    )


def test_rows_are_in_trl_s_format_and_what_was_left_out_has_its_origin(files):
    folder, metrics = build(files / "one", EVERYTHING.format(folder=files))
    train = read_dataset(folder, "train")
    assert len(train) == metrics["train_rows"]
    assert set(train[0]) == {"messages", "form", "origin", "row", "tier"}
    assert train[0]["messages"][0].keys() == {"role", "content"}
    lengths = [sum(len(turn["content"]) for turn in row["messages"]) for row in train]
    assert lengths == sorted(lengths)
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").open(encoding="utf-8")]
    assert len(dropped) == metrics["dropped_rows"]
    hit = next(row for row in dropped if "evaluation" in row["reason"])
    assert (hit["origin"], hit["row"]) == ("b.jsonl", 601)
    assert hit["detail"]["evaluation"] == "eval.jsonl, line 1"
    from datasets import load_dataset

    loaded = load_dataset(str(folder), cache_dir=str(files / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {
        "train": metrics["train_rows"], "test": metrics["test_rows"]
    }  # fmt: skip


def test_no_prompt_is_on_both_sides_and_a_source_can_be_held_out(files):
    held_out = rows_of(50)
    write(files / "held_out.jsonl", [dict(row, completion="Another answer") for row in held_out])
    folder, metrics = build(
        files / "one",
        f"name: mine\nsources:\n  - {{path: {files}/a.jsonl}}\n"
        f"  - {{path: {files}/held_out.jsonl, split: test}}\n",
    )
    assert metrics["test_rows"] == 50
    train, test = (
        {prompt_id(row["messages"][:1]) for row in read_dataset(folder, split)}
        for split in ("train", "test")
    )
    assert not train & test
    report = read_json(folder / "build.json")
    steps = {step["step"]: step for step in report["steps"]}
    assert steps["held-out prompts"]["left_out"] == {"has a held-out prompt": 47}


def test_moving_a_source_changes_nothing_and_its_content_does(files):
    def identity(name):
        (files / "build.yaml").write_text(f"name: mine\nsources: [{{path: {files / name}}}]\n")
        config = load(BuildConfig, files / "build.yaml")
        return describe({"sources": config.opened(), "config": config.cleaning()})

    (files / "moved.jsonl").write_bytes((files / "a.jsonl").read_bytes())
    assert identity("a.jsonl") == identity("moved.jsonl") != identity("b.jsonl")


def test_portions_by_hand():
    config = MixtureConfig()
    # Base alone: every row once.
    assert portions([100, 50], [1.0, 1.0], ["base", "base"], config) == [100, 50]
    # Weights are passes: half of the first, twice the second.
    assert portions([100, 50], [0.5, 2.0], ["base", "base"], config) == [50, 100]
    # 60 : 30 : 10. Base needs 600/0.6 = 1000 rows in all: 300 augmented, 100 hard.
    assert portions([600, 600, 50], [1.0] * 3, ["base", "augmented", "hard"], config) == [
        600, 300, 100
    ]  # fmt: skip
    # Hard would stand in 5 passes, more than 4: 4 · 20 = 80 rows of it, so 800 in all.
    assert portions([600, 600, 20], [1.0] * 3, ["base", "augmented", "hard"], config) == [
        480, 240, 80
    ]  # fmt: skip
    # Without hard rows, base and augmented share 60 : 30.
    assert portions([600, 600], [1.0] * 2, ["base", "augmented"], config) == [600, 300]
    small = MixtureConfig(rows=100)
    assert portions([600, 600, 50], [1.0] * 3, ["base", "augmented", "hard"], small) == [60, 30, 10]
    with pytest.raises(DataError, match="The tier 'odd' has no share"):
        portions([1, 1], [1.0, 1.0], ["base", "odd"], config)
    with pytest.raises(DataError, match="more than 4 passes"):
        portions([10], [1.0], ["base"], MixtureConfig(rows=100))


def test_drawing_takes_whole_passes_then_some_rows_by_the_seed():
    source, difficulty = np.array([0, 1, 0, 1, 0, -1]), np.array([3.0, 1.0, 2.0, 9.0, 1.0, 0.0])
    config = MixtureConfig()
    assert draw(source, difficulty, {0: 3, 1: 4}, config, 0).tolist() == [0, 2, 4, 1, 3, 1, 3]
    part = draw(source, difficulty, {0: 2, 1: 0}, config, 0)
    assert len(set(part.tolist())) == 2 and set(part.tolist()) <= {0, 2, 4}
    assert draw(source, difficulty, {0: 2, 1: 0}, config, 0).tolist() == part.tolist()
    curriculum = MixtureConfig(order="short_first")
    assert draw(source, difficulty, {0: 3, 1: 2}, curriculum, 0).tolist() == [4, 1, 2, 0, 3]
    shuffled = draw(source, difficulty, {0: 3, 1: 2}, MixtureConfig(order="shuffled"), 1)
    assert sorted(shuffled.tolist()) == [0, 1, 2, 3, 4]


def test_rows_that_the_mixture_does_not_draw_are_counted(files):
    write(files / "few.jsonl", rows_of(40, start=50_000))
    folder, _ = build(
        files / "one",
        f"name: mine\nsources:\n  - {{path: {files}/b.jsonl}}\n"
        f"  - {{path: {files}/few.jsonl, tier: hard}}\nmixture: {{most_passes: 1}}\n",
    )
    report = read_json(folder / "build.json")
    reason = "is not drawn: the mixture takes fewer rows of its source"
    counts = [source["left_out"].get(reason, 0) for source in report["sources"]]
    assert counts[0] > 300 and counts[1] == 0
    tiers = [row["tier"] for row in read_dataset(folder, "train")]
    assert tiers.count("hard") / len(tiers) == pytest.approx(10 / 70, abs=0.005)


def test_the_schema_has_only_what_rows_have():
    turns = {("messages", "list"), ("messages.role", ""), ("messages.content", "")}
    plain = schema_of(
        turns | {("form", "str"), ("origin", "str"), ("row", "int"), ("source", "int")}
    )
    assert plain.names == ["messages", "form", "origin", "row"]
    others = {("n", "int"), ("n", "float"), ("m", "int"), ("m", "str"), ("b", "bool")}
    mixed = schema_of(turns | others)
    assert [str(mixed.field(name).type) for name in ("n", "m", "b")] == ["double", "string", "bool"]


def test_kept_columns_stand_beside_the_dialogue(tmp_path):
    rows = [row | {"confidence": n / 100, "tags": ["a"]} for n, row in enumerate(rows_of(100))]
    write(tmp_path / "rows.jsonl", rows)
    folder, metrics = build(
        tmp_path / "one",
        f"name: mine\nsources: [{{path: {tmp_path}/rows.jsonl, keep: [confidence, tags]}}]\n"
        "steps: [roles, confidence]\nsplits: {held_out_share: 0.3}\n",
    )
    assert metrics["dropped_rows"] == 90
    row = read_dataset(folder, "train")[0]
    assert row["confidence"] >= 0.9 and row["tags"] == '["a"]'
    with pytest.raises(DataError, match="has no column 'sure', which keep names"):
        build(
            tmp_path / "two",
            f"name: mine\nsources: [{{path: {tmp_path}/rows.jsonl, keep: [sure]}}]\n",
        )


class Worker:
    """Works as a process does, but here."""

    started = 0

    def __init__(self, start):
        Worker.started += 1
        self.function = start()

    def send(self, batch):
        self.result = self.function(batch)

    def receive(self):
        return self.result

    def stop(self):
        pass

    def __class_getitem__(cls, types):
        return cls


@pytest.mark.parametrize(
    ("seconds", "workers", "started"), [(60.0, None, 0), (0.0, None, 2), (60.0, 2, 2), (0.0, 1, 0)]
)
def test_processes_start_after_some_seconds_of_work(monkeypatch, seconds, workers, started):
    monkeypatch.setattr("sft.build.workers._Worker", Worker)
    monkeypatch.setattr("sft.build.workers._WORTH_STARTING", seconds)
    monkeypatch.setattr("sft.build.workers.default_workers", lambda: 2)
    monkeypatch.setattr(Worker, "started", 0)
    results = map_in_order(lambda: lambda batch: batch * 2, iter(range(50)), workers)
    assert list(results) == [2 * n for n in range(50)]
    assert Worker.started == started
    assert list(map_in_order(lambda: abs, iter([]), workers)) == []


def dies():
    die_within_the_next_message()
    return abs


def test_a_worker_that_is_killed_within_a_message_is_named():
    with pytest.raises(PlumblineError, match=r"exit code -9\); most likely memory ran out"):
        list(map_in_order(dies, iter([1]), 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a b", "name is 'a b'"),
        ("sources: [{path: x}]", "'name' must be set"),
        ("name: mine\nsources: [{path: x, split: test}]", "every source has split: test"),
        ("name: mine\nsources: [{path: x, weight: 0}]", "weight"),
        ("name: mine\nsources: [{path: x, keep: [messages]}]", "a column of the build's own"),
        (
            "name: mine\nsources: [{path: x, keep: [prompt]}]",
            "or of other datasets",
        ),
        ("name: mine\nsources: [{path: x}]\nmixture: {tiers: {base: -1}}", "shares of tiers"),
        ("name: mine\nsources: [{path: x}]\nmixture: {order: backwards}", "no order of rows"),
        ("name: mine\nsources: [{path: x}]\nworkers: 0", "workers is 0"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path, text, message):
    (tmp_path / "build.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load(BuildConfig, tmp_path / "build.yaml")
    assert message in str(error.value)


def test_a_build_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="sources is empty"):
        BuildConfig(name="mine").opened()


def test_a_worker_s_error_names_the_row(tmp_path, monkeypatch):
    (tmp_path / "broken_step.py").write_text(
        "def step(row):\n    if row['row'] == 1700:\n        raise KeyError('x')\n    return row\n"
    )
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", rows_of(2500))
    text = f"name: mine\nsources: [{{path: {tmp_path}/rows.jsonl}}]\nsteps: [broken_step.step]\n"
    for workers in (1, 2):
        with pytest.raises(
            DataError, match=r"row 1700: the step broken_step\.step raised KeyError"
        ):
            build(tmp_path / str(workers), text, workers=workers)


def test_tools_and_reasoning_survive_the_build(tmp_path, stage):
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    talk = [
        user("q"),
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3", "name": "f"},
        assistant("It is 3.") | {"reasoning_content": "f says 3", "weight": 0},
        user("sure?"),
        assistant("Yes."),
    ]
    rows = [{"messages": talk, "form": "multi_turn", "tools": '[{"name": "f"}]'}]
    rows += [
        {"messages": [user(f"q{n}"), assistant("a")], "form": "single_turn"} for n in range(40)
    ]
    config = BuildConfig(name="x", sources=[{"path": "x"}], splits={"held_out_share": 0.2})
    build_dataset(stage, config=config.cleaning(), sources=[from_rows(rows, "x")], data_seed=0)
    both = [*read_dataset(stage.folder, "train"), *read_dataset(stage.folder, "test")]
    row = next(row for row in both if row["row"] == 1)
    assert row["messages"] == talk
    assert row["tools"] == '[{"name": "f"}]'


def finds_no_model():
    raise DataError("there is no model to clean with")


def test_a_process_that_cannot_start_says_why():
    """Also where it has ended before it was sent its first rows, or all of them."""
    with pytest.raises(DataError, match="no model to clean with"):
        list(map_in_order(finds_no_model, iter(["x" * 5_000_000]), 2))


def test_a_number_that_its_column_cannot_hold_is_named(tmp_path):
    columns = [("messages.role", "str"), ("messages.content", "str"), ("x", "int"), ("x", "float")]
    rows = [{"messages": [], "x": 0.5}, {"messages": [], "x": 2**53 + 1}]
    with pytest.raises(DataError, match=r"rows.parquet .*column 'x' .*9007199254740993"):
        write_table(tmp_path / "rows.parquet", rows, schema_of(columns))
