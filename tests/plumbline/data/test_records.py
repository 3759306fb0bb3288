"""Records on disk: TRL's formats, readable by the tools people already use."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from plumbline.data.records import (
    assistant,
    is_held_out,
    iterate_dataset,
    number_of_rows,
    opening,
    problem_with,
    prompt_id,
    read_dataset,
    user,
    write_dataset,
)
from plumbline.dropped import Dropped
from plumbline.errors import DataError

PAIR = {
    "prompt": [user("Hi?")],
    "chosen": [assistant("Hello.")],
    "rejected": [assistant("What?")],
}


def test_a_dataset_opens_in_the_datasets_library(tmp_path):
    dropped = Dropped()
    dropped.add("file.json", 3, "is empty", {"x": 1})
    write_dataset(
        tmp_path / "out",
        {"train": [PAIR, PAIR], "test": [PAIR]},
        kind="preference",
        title="Pairs",
        description="Two and one.",
        dropped=dropped,
    )
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 2, "test": 1}
    assert loaded["test"][0]["chosen"] == [{"role": "assistant", "content": "Hello."}]
    assert read_dataset(tmp_path / "out", "test") == [PAIR]
    assert "| is empty | 1 | 3 |" in (tmp_path / "out" / "README.md").read_text()
    assert Dropped.read(tmp_path / "out").rows == dropped.rows


CALLED = {**PAIR, "chosen": [{**PAIR["chosen"][0], "reasoning_content": "Hm."}]}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ([PAIR], []),
        ([], [PAIR]),
        ([PAIR], [PAIR | {"more": 1}]),
        ([PAIR | {"more": 1}], [PAIR | {"more": 1.5}]),
        ([PAIR | {"more": None}], [PAIR | {"more": "a"}]),
        ([PAIR], [CALLED]),
    ],
)
def test_splits_that_differ_open_in_the_datasets_library(tmp_path, train, test):
    """It takes the columns of the first split for all, and opens none where one is empty."""
    splits = {"train": train, "test": test}
    write_dataset(tmp_path / "out", splits, kind="preference", title="Pairs", description="")
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    for split, rows in splits.items():
        assert len(loaded.get(split, [])) == len(rows) == number_of_rows(tmp_path / "out", split)
        for row, written in zip(loaded.get(split, []), rows, strict=True):
            assert row.items() >= {k: held for k, held in written.items() if k == "more"}.items()
            assert row["chosen"][0].items() >= written["chosen"][0].items()


def test_trl_takes_the_dataset_as_it_is(tmp_path):
    from trl.data_utils import is_conversational

    write_dataset(tmp_path, {"train": [PAIR]}, kind="preference", title="P", description="")
    assert is_conversational(read_dataset(tmp_path, "train")[0])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", "is str, not a list"),
        ([], "has no message"),
        (["text"], "message 1 that is str"),
        ([{"role": "bot", "content": "x"}], "role 'bot' in message 1"),
        ([user("x"), {"role": "assistant", "content": None}], "NoneType as content of message 2"),
        ([user("x"), assistant(" \n")], "an empty message 2"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said(value, reason):
    assert reason in problem_with(value)


def test_writing_a_wrong_row_names_split_and_row(tmp_path):
    wrong = PAIR | {"prompt": [user("Hi?"), assistant("Yes?")]}
    with pytest.raises(DataError, match=r"'train', row 2: 'prompt' ends with the assistant's turn"):
        write_dataset(
            tmp_path, {"train": [PAIR, wrong]}, kind="preference", title="P", description=""
        )


def test_a_missing_split_names_those_that_are_there(tmp_path):
    write_dataset(tmp_path, {"train": [PAIR]}, kind="preference", title="P", description="")
    with pytest.raises(DataError, match="it has: train"):
        read_dataset(tmp_path, "test")


def test_held_out_depends_on_text_and_data_seed_alone():
    prompts = [[user(f"question {n}")] for n in range(2000)]
    first = [is_held_out(p, 0.2, 0) for p in prompts]
    assert first == [is_held_out(p, 0.2, 0) for p in prompts]
    assert first != [is_held_out(p, 0.2, 1) for p in prompts]
    assert 0.17 < sum(first) / 2000 < 0.23
    # A larger share holds out more of the same prompts, never others.
    more = [is_held_out(p, 0.4, 0) for p in prompts]
    assert all(now for now, before in zip(more, first, strict=True) if before)


def test_prompt_id_tells_roles_and_turns_apart():
    ids = {
        prompt_id(p)
        for p in ([user("a b")], [user("a"), user("b")], [assistant("a b")], [user("a"), user("")])
    }
    assert len(ids) == 4


def test_dropped_rows_may_hold_any_line_end(tmp_path):
    dropped = Dropped()
    dropped.add("file", 1, "was odd", "one\u2028two\u0085three\nfour")
    dropped.write(tmp_path)
    assert Dropped.read(tmp_path).rows == dropped.rows


def test_dropped_rows_may_hold_half_a_character(tmp_path):
    dropped = Dropped()
    dropped.add("file", 1, "was cut", {"text": "smile \ud83d"})
    dropped.write(tmp_path)
    assert Dropped.read(tmp_path).rows == dropped.rows


def test_many_reasons_are_counted_in_one_pass_and_cut():
    dropped = Dropped()
    for number in range(100_000):
        dropped.add("file", number, f"has a turn by 'x{number}'", None)
    for number in range(9):
        dropped.add("file", number, "is empty", None)
    table = dropped.by_reason()
    assert table[0] == ("is empty", 9, "0, 1, 2, 3, 4, 5, 6, 7, …")
    assert len(table) == 21
    assert table[-1][1] == 100_009 - 9 - 19
    assert table[-1][0].startswith(f"{100_000 - 19} other reasons")


def test_messages_with_calls_reasoning_and_weights_survive_the_disk(tmp_path):
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
    rows = [
        {"messages": [user("a"), assistant("b")]},
        {"messages": [
            user("a"),
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "18", "name": "weather"},
            assistant("b") | {"reasoning_content": "it says 18", "weight": 0},
            assistant("c"),
        ], "tools": "[]"},
    ]  # fmt: skip
    write_dataset(tmp_path, {"train": rows}, kind="messages", title="M", description="")
    assert read_dataset(tmp_path, "train") == [rows[0] | {"tools": None}, rows[1]]


def test_the_opening_of_a_dialogue_ends_before_the_first_response():
    system = {"role": "system", "content": "Be brief."}
    assert opening([system, user("a"), assistant("b"), user("c")]) == [system, user("a")]
    assert opening([user("a")]) == [user("a")]
    greeted = [assistant("Hello"), user("a"), assistant("b")]
    assert opening(greeted) == greeted[:2]


def test_what_has_been_read_of_a_file_is_not_held(tmp_path):
    """Arrow by itself keeps all that it has read of a Parquet file until it is closed."""
    draw = random.Random(0)
    rows = [{"prompt": [user(draw.randbytes(900).hex())]} for _ in range(4000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet", row_group_size=500)
    size, before = (tmp_path / "train.parquet").stat().st_size, pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in iterate_dataset(tmp_path, "train")]
    assert len(held) == 4000 and size > 3e6
    assert max(held[-1000:]) < size  # a thousand rows, and not the file besides
