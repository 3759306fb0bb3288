"""Building demonstrations: every format is read, and every row left out keeps its reason."""

from __future__ import annotations

import json

import pytest

from plumbline.data.records import assistant, prompt_id, read_dataset, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.world.data import demonstrations
from sft.build import build_demonstrations
from sft.build.demonstrations import clean
from sft.build.splits import SplitRule, split_of
from sft.cleaning.step import StepContext
from sft.cleaning.text import UNICODE, UnicodeConfig
from sft.config import DemonstrationsConfig
from sft.forms import chain_of_thought, form_of, single_turn, split_worked_answer
from sft.sources import from_dataset, from_file, from_rows


def source(tmp_path, records):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return from_file(SourceFile(path))


@pytest.mark.parametrize(
    ("record", "messages", "form"),
    [
        (
            {"instruction": "Add.", "input": "1 and 2", "output": "3"},
            [user("Add.\n\n1 and 2"), assistant("3")],
            "single_turn",
        ),
        (
            {"question": "1+2?", "answer": "One and two <<1+2=3>>is 3.\n#### 3"},
            [user("1+2?"), assistant("One and two is 3.\nAnswer: 3")],
            "chain_of_thought",
        ),
        ({"prompt": "Hi", "completion": "Hello"}, [user("Hi"), assistant("Hello")], "single_turn"),
        (
            {"prompt": [user("Hi")], "completion": [assistant("Hello")]},
            [user("Hi"), assistant("Hello")],
            "single_turn",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                    {"from": "human", "value": "c"},
                    {"from": "gpt", "value": "d"},
                ]
            },
            [user("a"), assistant("b"), user("c"), assistant("d")],
            "multi_turn",
        ),
        ({"messages": [user("a"), assistant("b")]}, [user("a"), assistant("b")], "single_turn"),
    ],
)
def test_formats_of_the_field_are_read(tmp_path, record, messages, form):
    (row,) = source(tmp_path, [record])
    assert (row["messages"], row["form"]) == (messages, form)
    assert (row["origin"], row["row"]) == ("rows.jsonl", 1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"text": "x"}, "has the columns text, but no prompt"),
        ({"prompt": "x"}, "ends with the user's turn, so there is no response to learn"),
        ({"prompt": "x", "completion": "y", "images": ["1.jpg"]}, "has images"),
        ({"prompt": [{"from": "bot 7", "value": "x"}], "completion": "y"}, "a turn 1 by 'bot 7'"),
        ({"messages": [user("x"), assistant("y")]}, "is of the format messages, and its file"),
    ],
)
def test_a_record_that_cannot_be_read_is_kept_with_the_reason(tmp_path, record, reason):
    found = source(tmp_path, [{"prompt": "a", "completion": "b"}, record])
    assert len(list(found)) == 1
    (row,) = found.dropped.entries()
    assert row["row"] == 2
    assert reason in row["reason"]
    assert row["record"] == record


def test_rows_are_cleaned_deduplicated_and_split_by_prompt(stage):
    rows = [{"messages": [user(f"q{n}?"), assistant("yes")], "form": "single_turn"} for n in
            range(200)]  # fmt: skip
    rows += [
        {"messages": [user("Q0? "), assistant(" Yes")], "form": "single_turn"},  # a repetition
        {"messages": [user("empty"), assistant("\u0000 ")], "form": "single_turn"},
        {"messages": [user("no answer")], "form": "single_turn"},
        {"messages": [user("long"), assistant("x" * 900)], "form": "single_turn"},
        {"messages": [user("two"), assistant("a")], "form": "multi_turn"},
    ]
    figures = build_demonstrations(
        stage,
        config=DemonstrationsConfig(forms=("single_turn",), max_characters=800, held_out_share=0.1),
        source=from_rows(rows, "test"),
        data_seed=0,
    )
    assert figures["train_rows"] + figures["test_rows"] == 200
    assert 8 <= figures["test_rows"] <= 35
    reasons = {row["row"]: row["reason"] for row in Dropped.read(stage.folder).rows}
    assert reasons[201] == "repeats an earlier row"
    assert "empty message 2" in reasons[202]
    assert "ends with the user's turn" in reasons[203]
    assert "max_characters (800)" in reasons[204]
    assert "forms leaves out" in reasons[205]
    train, test = (
        {prompt_id(row["messages"][:-1]) for row in read_dataset(stage.folder, split)}
        for split in ("train", "test")
    )
    assert not train & test


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def test_the_held_out_rows_of_a_dataset_are_held_out_again(stage, tmp_path):
    def rows(*names):
        return [
            {"messages": [user(f"q {name}"), assistant("yes")], "form": "single_turn"}
            for name in names
        ]

    folder = tmp_path / "earlier"
    splits = {"train": rows("x"), "test": rows("a", "b")}
    write_dataset(folder, splits, kind="messages", title="D", description="")
    held_out = from_dataset(Folder(folder), "test")
    build_demonstrations(
        stage,
        config=DemonstrationsConfig(),
        source=from_rows(rows("b", "c", "d"), "new"),
        data_seed=0,
        held_out=held_out,
    )
    assert held_out.rows_read == 2
    origins = {
        split: [(row["origin"], row["row"]) for row in read_dataset(stage.folder, split)]
        for split in ("train", "test")
    }
    assert origins == {"train": [("new", 2), ("new", 3)], "test": [("earlier", 1), ("earlier", 2)]}


def test_too_few_rows_say_what_was_left_out(stage):
    rows = [{"messages": [user("a")], "form": "single_turn"}]
    with pytest.raises(DataError, match="0 demonstrations are left of 1 read"):
        build_demonstrations(
            stage, config=DemonstrationsConfig(), source=from_rows(rows, "x"), data_seed=0
        )


def test_text_is_normalized_but_not_rewritten():
    assert UNICODE.prepare is not None
    step = UNICODE.prepare(UnicodeConfig(repair=False), StepContext())
    (outcome,) = step([{"messages": [assistant("  e\u0301 line\r\nnext\x07\ttab \r")]}])
    assert outcome.rows[0]["messages"][0]["content"] == "\u00e9 line\nnext\ttab"
    assert outcome.changes == (
        "line ends were made plain",
        "characters were composed (NFC)",
        "control characters were removed",
        "outer white space was removed",
    )


def test_the_first_of_equals_stays(stage):
    rows = [[user("A  b"), assistant("C")], [user("a b"), assistant("c")],
            [user("a b"), assistant("d")]]  # fmt: skip
    rows = [{"messages": messages, "form": "single_turn"} for messages in rows]
    cleaned = clean(from_rows(rows, "x"), DemonstrationsConfig(), 9)
    assert [row["row"] for row in cleaned.first] == [1, 3]
    (entry,) = cleaned.dropped.entries()
    assert (entry["row"], entry["reason"]) == (2, "repeats an earlier row")
    assert entry["detail"] == {"repeats": {"origin": "x", "row": 1}}


def test_forms():
    assert form_of(single_turn("a", "b")) == "single_turn"
    assert form_of(chain_of_thought("a", ["1 + 1 = 2"], "2")) == "chain_of_thought"
    assert split_worked_answer("no mark") is None
    assert split_worked_answer("#### 3") is None
    assert split_worked_answer("a\n\nb <<1>>c\n#### 1,000 ") == (["a", "b c"], "1,000")


def test_the_world_s_demonstrations_all_survive(stage):
    figures = build_demonstrations(
        stage,
        config=DemonstrationsConfig(),
        source=from_rows(demonstrations(0, 300), "world"),
        data_seed=0,
    )
    assert figures["dropped_rows"] == 0
    assert {name for name in figures if name.endswith("turn_rows") or "chain" in name} == {
        "single_turn_rows",
        "chain_of_thought_rows",
        "multi_turn_rows",
    }


@pytest.mark.parametrize(
    ("name", "read", "left_out", "form"),
    [
        ("llamafactory/alpaca_en_demo.json", 999, 0, "single_turn"),
        ("llamafactory/alpaca_zh_demo.json", 1000, 0, "single_turn"),
        ("gsm8k/test.jsonl", 1319, 0, "chain_of_thought"),
        ("mtbench/dummy_conversation.json", 500, None, "multi_turn"),
        ("llamafactory/mllm_demo.json", 0, 6, None),
    ],
)
def test_real_files_are_read_whole(real_file, name, read, left_out, form):
    found = from_file(SourceFile(real_file(name)))
    rows = list(found)
    if left_out is not None:
        assert (len(rows), len(found.dropped)) == (read, left_out)
    assert len(rows) + len(found.dropped) == max(read, left_out or 0)
    if form is not None:
        assert sum(row["form"] == form for row in rows) > 0.4 * len(rows)


def test_rows_of_files_that_are_not_learnt_keep_their_reason(tmp_path):
    talk = [user("q"), assistant("a")]
    found = source(
        tmp_path,
        [
            {"messages": talk, "label": True},
            {"messages": talk, "label": False},
            {"messages": talk, "weight": 0},
            {"messages": talk, "weight": 0.5},
            {"messages": [user("q"), assistant("a") | {"weight": 0}]},
            {"messages": talk, "tools": [{"name": "weather"}]},
        ],
    )
    rows = list(found)
    assert [row["row"] for row in rows] == [1, 6]
    assert json.loads(rows[1]["tools"]) == [{"name": "weather"}]
    reasons = {row["row"]: row["reason"] for row in found.dropped.entries()}
    assert reasons == {
        2: "has the label false: its response was rejected, so it is not learnt",
        3: "has the weight 0, so it is not learnt",
        4: "has the weight 0.5; a row is learnt (1) or not (0)",
        5: "has the weight 0 in each turn of the assistant's, so there is nothing to learn",
    }


def test_the_stage_names_columns_that_are_not_used_and_marks_in_data_do_no_harm(tmp_path, capsys):
    from plumbline.runs.progress import Reporter
    from plumbline.runs.stage import Stage

    rows = [{"prompt": f"q{n}", "completion": "a", "[/red]id": n} for n in range(60)]
    rows.append({"[/bold]": "x"})
    stage = Stage(tmp_path / "stage", Reporter())
    build_demonstrations(
        stage, config=DemonstrationsConfig(), source=source(tmp_path, rows), data_seed=0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "columns that are not used: [/red]id (60 rows)" in said
    assert "left out 1: has the columns [/bold], but no prompt (rows 61)" in said
    assert "columns that are not used" in (stage.folder / "README.md").read_text()


def test_no_response_that_is_tested_is_learnt_inside_a_longer_dialogue():
    """A set made of growing dialogues: each question alone, and as the first turn of a dialogue."""
    rows = []
    for n in range(500):
        first = [user(f"question {n}"), assistant(f"answer {n}")]
        rows.append({"messages": first})
        rows.append({"messages": [*first, user("more?"), assistant(f"more {n}")]})
    train, test = (
        [row for row in rows if split_of(row, SplitRule(None, True), 0.05, 0) == split]
        for split in ("train", "test")
    )
    spoken = [
        {str(r["messages"][: n + 1]) for r in side for n, m in enumerate(r["messages"]) if
         m["role"] == "assistant"}
        for side in (train, test)
    ]  # fmt: skip
    assert len(test) >= 20
    assert not spoken[0] & spoken[1]


def test_kept_columns_of_several_types_and_of_large_numbers_are_text(tmp_path):
    import pyarrow.parquet as pq

    from sft.build.passes import _columns
    from sft.build.tables import schema_of, write_table

    talk = [user("a"), assistant("b")]
    rows = [{"messages": talk, "id": value} for value in (10**30, 1, "a", True)]
    write_table(tmp_path / "rows.parquet", rows, schema_of(_columns(rows)))
    kept = pq.read_table(tmp_path / "rows.parquet").column("id").to_pylist()
    assert kept == [str(10**30), "1", "a", "True"]
