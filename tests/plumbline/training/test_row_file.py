"""Rows in a file: the same as in memory, without memory of their own, on a disk that may fail."""

from __future__ import annotations

import gc
import shutil
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from plumbline.config import Config
from plumbline.data.records import assistant, prompt_id, user
from plumbline.dropped import Dropped, DroppedFile
from plumbline.errors import SystemFailedError
from plumbline.lm.chat import encode_response
from plumbline.lm.context import LengthLimit
from plumbline.runs.artifacts import Artifact
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import Stage, stage
from plumbline.training.pairs import encode_pairs
from plumbline.training.row_file import (
    ROWS_AT_ONCE,
    LazyRows,
    Lists,
    RowFile,
    empty_folder,
    in_parts,
    rows_at,
)
from sft.tokenized import TOKEN_WEIGHTS, tokenize

LIMIT = LengthLimit(200, "is too long")


def pair(number):
    """Return a pair; every tenth is the same on both sides."""
    same = number % 10 == 3
    return {
        "pair_id": str(number), "prompt": [user(f"How much is {number} and one?")],
        "margin": number / 7, "tally": {"a": number, "b": None}, "origin": "here", "row": number,
        "chosen": [assistant(f"It is {number + 1}.")],
        "rejected": [assistant(f"It is {number + 1 if same else 'red'}.")],
    }  # fmt: skip


def demonstration(number):
    return {
        "messages": [user(f"How much is {number} and one?"), assistant(f"It is {number + 1}.")],
        "origin": "here", "row": number,
    }  # fmt: skip


def test_pairs_in_a_file_are_what_each_row_says(tokenizer, tmp_path):
    """More than are written at once, against the ids of each row by itself."""
    rows = [pair(number) for number in range(ROWS_AT_ONCE + 60)]
    dropped = DroppedFile(tmp_path)
    pairs = encode_pairs(iter(rows), tokenizer, LIMIT, dropped, tmp_path / "rows")
    kept = [row for row in rows if row["row"] % 10 != 3]
    assert len(pairs) == len(kept)
    for found, row in zip(pairs, kept, strict=True):
        prompt_ids, chosen = encode_response(tokenizer, row["prompt"], row["chosen"][0]["content"])
        _, rejected = encode_response(tokenizer, row["prompt"], row["rejected"][0]["content"])
        assert found[2:] == (prompt_ids, chosen, rejected)
        assert found.prompt_id == prompt_id(row["prompt"])
        texts = ("prompt", "chosen", "rejected")
        assert found.row == {name: value for name, value in row.items() if name not in texts}
    dropped.write(tmp_path)
    assert len(dropped) == 56
    assert [row["row"] for row in Dropped.read(tmp_path).rows] == [*range(3, ROWS_AT_ONCE + 60, 10)]
    assert dropped.summary().startswith("56 × chosen and rejected are the same (rows 3, 13, 23, ")


@pytest.mark.parametrize("what", ["pairs", "demonstrations"])
def test_rows_take_no_memory_of_their_own(what, tokenizer, tmp_path):
    """1,000 more rows leave less than 200 bytes each, where Python's lists take over a thousand."""

    def held(count):
        tracemalloc.start()
        if what == "pairs":
            rows = (pair(number) for number in range(count))
            kept = encode_pairs(rows, tokenizer, LIMIT, DroppedFile(tmp_path), tmp_path / "rows")
        else:
            rows = (demonstration(number) for number in range(count))
            kept = tokenize(rows, tokenizer, LIMIT, DroppedFile(tmp_path), tmp_path / "rows.arrow")
        sum(len(row) for row in kept)  # what has been read is not kept
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(kept) >= 0.9 * count
        return size

    held(10)  # what is made once, such as templates
    few, many = held(100), held(1100)
    assert many - few < 1000 * 200


def test_rows_that_are_made_when_they_are_asked_for():
    rows = LazyRows(5, lambda number: number * number)
    assert list(rows) == [0, 1, 4, 9, 16] and rows[-1] == 16 and rows[1:4] == [1, 4, 9]
    assert list(rows_at(rows, [4, 0])) == [16, 0]
    for number in (5, -6):
        with pytest.raises(IndexError):
            rows[number]


def test_lists_keep_their_lengths_and_may_be_empty():
    file = RowFile({"ids": "ids", "weights": "numbers"}, None)
    rows = [list(range(number % 3)) for number in range(ROWS_AT_ONCE + 2)]
    for ids in rows:
        file.add({"ids": ids, "weights": [0.1] * len(ids)})
    table = file.table()
    ids, weights = Lists(table["ids"]), Lists(table["weights"])
    assert [ids[number] for number in range(len(rows))] == rows
    assert weights[ROWS_AT_ONCE] == [0.1] * (ROWS_AT_ONCE % 3)
    assert len(file) == len(rows)


def test_of_large_rows_few_are_held_at_once():
    rows = [{"prompt": [user("x" * 10**6)], "row": number} for number in range(7)]
    parts = list(in_parts(iter(rows)))
    assert [len(part) for part in parts] == [3, 3, 1] and [*chain(*parts)] == rows
    small = [{"prompt": [user("x")]} for _ in range(ROWS_AT_ONCE + 1)]
    assert [len(part) for part in in_parts(small)] == [ROWS_AT_ONCE, 1]
    file = RowFile({"ids": "ids"}, None)
    for number in range(5):
        file.add({"ids": [number] * 10**6})
    table = file.table()
    assert [len(chunk) for chunk in table["ids"].chunks] == [3, 2] and len(file) == 5
    assert [Lists(table["ids"])[number][0] for number in range(5)] == [0, 1, 2, 3, 4]


def test_a_disk_that_is_full_is_said(tokenizer, tmp_path):
    """The file is a link to a device on which there is never room."""
    (tmp_path / "pairs.arrow").symlink_to("/dev/full")
    rows = (pair(number) for number in range(20))
    with pytest.raises(SystemFailedError, match=r"pairs\.arrow: .*No space left.*same command"):
        encode_pairs(rows, tokenizer, LIMIT, Dropped(), tmp_path)


def test_a_folder_that_is_lost_is_said_or_does_not_matter(tokenizer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemFailedError, match="cannot be kept in"):
        encode_pairs([pair(1)], tokenizer, LIMIT, Dropped(), tmp_path / "file" / "below")
    file = RowFile({"ids": "ids"}, tmp_path / "gone" / "rows.arrow")
    file.add({"ids": [1, 2]})
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(SystemFailedError, match="cannot be kept in"):
        file.table()
    # Once it is mapped, the system keeps the file for as long as the training reads it.
    pairs = encode_pairs([pair(1), pair(2)], tokenizer, LIMIT, Dropped(), tmp_path / "rows")
    before = list(pairs)
    shutil.rmtree(tmp_path / "rows")
    assert list(pairs) == before and before[1].row["row"] == 2


def test_rows_that_are_read_stay_where_others_take_their_place(tmp_path):
    """As where a script gives two tasks the same name."""
    columns = []
    for value in (1, 2):
        file = RowFile({"ids": "ids"}, tmp_path / "rows.arrow")
        file.add({"ids": [value] * 3})
        columns.append(Lists(file.table()["ids"]))
    assert [column[0] for column in columns] == [[1] * 3, [2] * 3]


class KilledError(Exception):
    pass


@stage("rows")
def keep_rows(stage, *, killed_by):
    """Keep rows in the scratch folder, and end by an error where there is such a file."""
    file = RowFile({"ids": "ids"}, empty_folder(stage, Artifact(stage.folder)) / "rows.arrow")
    for number in range(3):
        file.add({"ids": [number]})
    if Path(killed_by).exists():
        raise KilledError
    (stage.folder / "rows.txt").write_text(str(file.table()["ids"].to_pylist()))
    return {}


def begin_and_kill(home, name, function):
    """Run a stage of this module that is killed; return what runs it again, to its end."""
    kill = home / "kill"
    kill.touch()
    run = Run(home, "run", "test", Config(), isolate=False, reporter=Reporter(quiet=True))
    with pytest.raises(KilledError):
        run.make(name, function, killed_by=str(kill))
    kill.unlink()
    return lambda: run.make(name, function, killed_by=str(kill))


def test_rows_are_gone_with_the_stage_s_folder_also_after_a_kill(tmp_path):
    run_again = begin_and_kill(tmp_path, "rows", keep_rows)
    assert len(list(tmp_path.rglob("rows.arrow"))) == 1  # in the folder that the next attempt uses
    made = run_again()
    assert not list(tmp_path.rglob("*.arrow"))
    assert not list((tmp_path / "store" / ".partial").iterdir())
    assert {file.name for file in made.path.iterdir()} == {"manifest.json", "rows.txt"}


def test_what_a_killed_attempt_left_is_removed(tmp_path):
    stage = Stage(tmp_path, Reporter(quiet=True))
    folder = empty_folder(stage, Artifact(tmp_path))
    folder.mkdir(parents=True)
    (folder / "cache-1.arrow").touch()
    assert empty_folder(stage, Artifact(tmp_path)) == folder and not folder.exists()
    assert folder.is_relative_to(stage.scratch) and not folder.is_relative_to(stage.folder)


def beside_each_other(tmp_path, monkeypatch, encode):
    """Return what ``encode`` gives the first process and another one, which begins before it."""

    def in_process(number):
        monkeypatch.setenv("RANK", str(number))
        stage = Stage(tmp_path / "partial", Reporter(quiet=True), number)
        return encode(number, empty_folder(stage, Artifact(tmp_path)))

    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(in_process, 1)
        time.sleep(0.2)
        assert not waiting.done() and not list(tmp_path.rglob("*.arrow"))
        first = in_process(0)
        return first, waiting.result(timeout=20)


def nothing_to_tokenize():
    raise AssertionError("the first process tokenizes")
    yield


def test_one_process_writes_pairs_and_the_others_map_its_file(tokenizer, tmp_path, monkeypatch):
    def encode(process, folder):
        rows = nothing_to_tokenize() if process else map(pair, range(ROWS_AT_ONCE + 60))
        return encode_pairs(rows, tokenizer, LIMIT, Dropped(), folder)

    first, second = beside_each_other(tmp_path, monkeypatch, encode)
    assert len(first) == ROWS_AT_ONCE + 60 - 56 and list(first) == list(second)
    assert len(list(tmp_path.rglob("*.arrow"))) == 1


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.1, 0.7)])
def test_one_process_writes_demonstrations_and_their_weights(
    weights, tokenizer, tmp_path, monkeypatch
):
    def encode(process, folder):
        rows = (demonstration(n) | {"weight": weights[n % 2]} for n in range(30))
        rows = nothing_to_tokenize() if process else rows
        return tokenize(rows, tokenizer, LIMIT, Dropped(), folder / "new-train.arrow")

    first, second = beside_each_other(tmp_path, monkeypatch, encode)
    assert len(first) == 30 and first.column_names == second.column_names
    assert (TOKEN_WEIGHTS in first.column_names) == (weights[0] != weights[1])
    assert first.to_list() == second.to_list()


@stage("waited")
def wait_for_rows(stage, *, killed_by):
    assert not stage.rows.exists()  # else a process that waits would take those of before
    stage.rows.mkdir(parents=True)
    (stage.rows / "pairs.json").write_text("[7, {}]")
    if Path(killed_by).exists():
        raise KilledError
    return {}


def test_no_process_takes_the_rows_of_an_attempt_that_was_killed(tmp_path):
    begin_and_kill(tmp_path, "waited", wait_for_rows)()
