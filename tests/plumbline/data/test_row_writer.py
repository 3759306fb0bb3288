"""Datasets that are written and read row by row: the same file as at once, in little memory."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from plumbline.data.records import (
    DatasetWriter,
    assistant,
    iterate_dataset,
    number_of_rows,
    read_dataset,
    rows_at_once,
    user,
    write_dataset,
)
from plumbline.data.row_writer import RowWriter
from plumbline.data.stored_rows import StoredRows
from plumbline.dropped import Dropped, DroppedFile, count_dropped
from plumbline.errors import DataError

CALL = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}


def growing_rows(count):
    """Rows of which later ones bring columns, keys of messages and other types of numbers."""
    for n in range(count):
        row = {"id": str(n), "prompt": [user(f"question {n} {'x' * (n % 50)}")]}
        row["margin"] = None if n < 600 else n if n < 900 else n + 0.5
        row["names"] = [] if n < 500 else ["a"]
        if n == 700:
            row["prompt"][0]["weight"] = 0
        if n >= 1000:
            row["prompt"].append(assistant("") | {"tool_calls": [CALL | {"id": "7"}, CALL]})
            row["extra"] = n % 2 == 0
        yield row


def at_once(path, rows):
    """What `datasets` writes of rows that it has in memory together."""
    columns = dict.fromkeys(name for row in rows for name in row)
    table = {name: [row.get(name) for row in rows] for name in columns}
    Dataset.from_dict(table).to_parquet(path)


@pytest.mark.parametrize("count", [0, 1, 1500])
def test_rows_one_by_one_give_the_bytes_of_all_at_once(tmp_path, count):
    at_once(tmp_path / "expected.parquet", list(growing_rows(count)))
    with RowWriter(tmp_path / "rows.parquet") as writer:
        for row in growing_rows(count):
            writer.add(row)
        writer.finish()
    expected = (tmp_path / "expected.parquet").read_bytes()
    assert (tmp_path / "rows.parquet").read_bytes() == expected
    assert {file.name for file in tmp_path.iterdir()} == {"expected.parquet", "rows.parquet"}


def test_what_later_rows_bring_is_null_in_earlier_groups(tmp_path):
    rows = list(growing_rows(1500))
    at_once(tmp_path / "expected.parquet", rows)
    with RowWriter(tmp_path / "rows.parquet", row_group=30_000) as writer:
        for row in growing_rows(1500):
            writer.add(row)
        assert writer.finish() == ["id", "prompt", "margin", "names", "extra"]
    assert pq.read_metadata(tmp_path / "rows.parquet").num_row_groups > 3
    written, expected = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("rows", "expected"))
    assert written.schema.equals(expected.schema, check_metadata=True)
    assert written.to_pylist() == expected.to_pylist()
    assert {file.name for file in tmp_path.iterdir()} == {"expected.parquet", "rows.parquet"}


def test_datasets_and_our_readers_read_it(tmp_path):
    rows = [{"messages": row["prompt"], "extra": row.get("extra")} for row in growing_rows(1500)]
    folder = tmp_path / "out"
    write_dataset(folder, {"train": iter(rows)}, kind="messages", title="M", description="")
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert (len(loaded), number_of_rows(folder, "train")) == (1500, 1500)
    assert loaded[1200]["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"
    assert "columns: extra, messages." in (folder / "README.md").read_text()
    assert read_dataset(folder, "train") == rows
    mapped = StoredRows(folder, "train", tmp_path / "scratch")
    assert len(mapped) == 1500 and list(mapped) == rows
    assert [mapped[n] for n in (1499, 0, 999, 1000, -1)] == [
        rows[n] for n in (1499, 0, 999, 1000, -1)
    ]
    assert mapped[998:1002] == rows[998:1002]
    with pytest.raises(IndexError):
        mapped[1500]
    some = iterate_dataset(folder, "train", ["extra"])
    assert Counter(row["extra"] for row in some) == {None: 1000, True: 250, False: 250}


def test_objects_without_keys_are_null_until_one_has_a_key(tmp_path):
    """Parquet has no objects without keys."""
    rows = [{"n": n, "x": {}, "y": [{"z": {}}], "never": {}} for n in range(40)]
    rows += [{"n": 40, "x": {"a": 1}, "y": [], "never": None}]
    with RowWriter(tmp_path / "rows.parquet", row_group=1) as writer:
        for row in rows:
            writer.add(row)
        writer.finish()
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column("x").to_pylist() == [None] * 16 + [{"a": None}] * 24 + [{"a": 1}]
    assert table.column("y").to_pylist() == [[{"z": None}]] * 40 + [[]]
    assert table.column("never").to_pylist() == [None] * 41


@pytest.mark.parametrize("distance", [1, 3000])
def test_a_column_of_texts_and_numbers_is_an_error_that_names_it(tmp_path, distance):
    rows = [{"a": 1, "b": "x"}] * distance + [{"a": 1, "b": 2}]
    with (
        pytest.raises(DataError, match=r"column 'b' holds values of different kinds"),
        RowWriter(tmp_path / "rows.parquet", row_group=10_000) as writer,
    ):
        for row in rows:
            writer.add(row)
        writer.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (["a", "\ud800"], "'n' holds a text with half a character"),
        ([1, 2**63 + 1, 2], "'n' holds a whole number of more than 64 bits"),
        ([0.5, *[2**60 + 1] * 20], "a whole number that cannot be one of them"),
    ],
)
def test_what_parquet_cannot_hold_is_an_error_that_says_so(tmp_path, values, why):
    with (
        pytest.raises(DataError, match=f"rows.parquet cannot be written: up to row .*{why}"),
        RowWriter(tmp_path / "rows.parquet") as writer,
    ):
        for value in [*[None] * 15, *values]:
            writer.add({"n": value})
        writer.finish()
    assert not list(tmp_path.iterdir())


FULL_DISK = """
import random
import resource
import sys
from pathlib import Path
from plumbline.data.row_writer import RowWriter

path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    with RowWriter(path) as writer:
        for _ in range(3000):  # so much that Arrow writes in the midst of a column
            writer.add({"text": random.randbytes(1000).hex()})
        writer.finish()
except OSError as error:
    print(error.errno, list(path.parent.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size, which stands in")
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "rows.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{errno.EFBIG} []\n"), done.stderr


def test_rows_that_are_mapped_stay_where_others_take_their_place(tmp_path):
    rows = [{"messages": [user(f"{n}"), assistant("b")]} for n in range(3)]
    for name, part in (("one", rows), ("two", rows[::-1])):
        write_dataset(tmp_path / name, {"train": part}, kind="messages", title="M", description="")
    first, second = (StoredRows(tmp_path / n, "train", tmp_path / "rows") for n in ("one", "two"))
    assert list(first) == rows
    assert list(second) == rows[::-1]


def test_of_large_rows_few_are_taken_at_once(tmp_path):
    text = "x" * 2**20
    waiting = []
    with RowWriter(tmp_path / "train.parquet") as writer:
        for number in range(40):
            writer.add({"messages": [user(f"{number} {text}"), assistant("b")]})
            waiting.append(len(writer._waiting))
        writer.finish()
    assert max(waiting[:15]) == 15 and max(waiting[16:]) < 4
    with pq.ParquetFile(tmp_path / "train.parquet") as file:
        assert file.num_row_groups == 2
        assert rows_at_once(file) < 16
    starts = [
        row["messages"][0]["content"].split()[0] for row in iterate_dataset(tmp_path, "train")
    ]
    assert starts == [str(number) for number in range(40)]


def test_an_error_while_rows_are_made_leaves_no_split(tmp_path):
    def rows():
        for number, row in enumerate(growing_rows(1500)):
            if number == 1400:
                raise DataError("the file ends here")
            yield {"messages": row["prompt"]}

    with pytest.raises(DataError, match="ends here"):
        write_dataset(tmp_path, {"train": rows()}, kind="messages", title="M", description="")
    assert not list(tmp_path.iterdir())


def test_an_error_at_the_end_of_one_split_leaves_none(tmp_path):
    rows = [{"messages": [user("a"), assistant("b")], "n": n} for n in (1, "x")]
    splits = {"train": rows[:1], "test": rows}
    with pytest.raises(DataError, match="'n' holds values of different kinds"):
        write_dataset(tmp_path, splits, kind="messages", title="M", description="")
    assert not list(tmp_path.iterdir())


def test_one_that_is_killed_leaves_no_split_and_the_next_one_finishes(tmp_path):
    with RowWriter(tmp_path / "train.parquet", row_group=1000) as killed:
        for row in growing_rows(1200):
            killed.add(row)
        left = {file.name for file in tmp_path.iterdir()}
        assert left and not any(name.endswith(".parquet") for name in left)
        with DatasetWriter(tmp_path, ["train"], kind="messages", title="M") as writer:
            writer.add("train", {"messages": [user("a"), assistant("b")]})
            writer.finish("")
        names = {file.name for file in tmp_path.iterdir()}
    assert names == {"train.parquet", "README.md", "dropped.jsonl"}


GROWTH = """
import sys
from pathlib import Path
from plumbline.data.records import DatasetWriter, assistant, iterate_dataset, user
from plumbline.data import row_writer
from plumbline.dropped import DroppedFile

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

row_writer.RowWriter.__init__.__defaults__ = (2**20,)
folder, peaks = Path(sys.argv[1]), []
for count in (2000, 2000, 12000):
    dropped = DroppedFile(folder)
    with DatasetWriter(folder, ["train"], kind="messages", title="M") as writer:
        for n in range(count):
            writer.add("train", {"messages": [user(f"{n} " * 500), assistant("word " * 100)]})
            dropped.add("file", n, "is odd", "x" * 2000)
        writer.finish("", dropped)
    assert sum(1 for _ in iterate_dataset(folder, "train")) == count
    peaks.append(peak())
print(peaks[2] - peaks[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells the peak")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # 10,000 rows more, of 3 KB kept and 2 KB left out each: 50 MB in memory, were they held there.
    assert int(done.stdout) < 16 * 1024


def test_left_out_rows_are_counted_alike_in_memory_and_in_a_file(tmp_path):
    kinds = [Dropped(), DroppedFile(tmp_path), DroppedFile()]
    for dropped in kinds:
        for number in range(30):
            dropped.add("file", number, f"has reason {number % 3}", {"x": "\u2028 \ud83d"}, number)
    first, in_folder, temporary = kinds
    assert list(temporary.entries()) == list(first.entries())
    in_folder.write(tmp_path)
    assert Dropped.read(tmp_path).rows == first.rows
    assert count_dropped(tmp_path).by_reason(at_most=3) == first.by_reason(at_most=3)
    assert len(count_dropped(tmp_path / "nothing")) == 0
    for dropped in kinds[1:]:
        assert (len(dropped), dropped.reasons()) == (len(first), first.reasons())
        assert dropped.by_reason() == first.by_reason()
        assert dropped.summary() == first.summary()


def test_row_numbers_of_several_files_are_named_with_them(tmp_path):
    kinds = [Dropped(), DroppedFile(tmp_path)]
    for dropped in kinds:
        for number in (3, 5, 7):
            dropped.add("held-out.jsonl", number, "is empty", None)
        for number in (3, 4):
            dropped.add("pairs.jsonl", number, "is empty", None)
        dropped.add("pairs.jsonl", 9, "is odd", None)
        dropped.write(tmp_path)
    rows = "held-out.jsonl: 3, 5, …; pairs.jsonl: 3, 4"
    for dropped in (*kinds, count_dropped(tmp_path)):
        assert dropped.by_reason(at_most=2) == [("is empty", 5, rows), ("is odd", 1, "9")]
    kinds[0].rows += [{"origin": f"{n}.jsonl", "row": n, "reason": "is empty"} for n in range(9)]
    assert kinds[0].by_reason(at_most=2)[0][2] == f"{rows}; 0.jsonl: 0; 1.jsonl: 1; …"
    assert kinds[0].by_reason(reasons=1)[1][::2] == ("1 other reasons (see dropped.jsonl)", "9")


def test_very_many_different_reasons_are_counted_together(tmp_path):
    dropped = DroppedFile(tmp_path)
    for number in range(10_010):
        dropped.add("file", number, f"has a turn by 'x{number}'", None)
    dropped.write(tmp_path)
    assert dropped.reasons()["other reasons (see dropped.jsonl)"] == 10
    assert len(dropped) == 10_010
    with (tmp_path / "dropped.jsonl").open() as lines:
        assert json.loads(list(lines)[-1])["reason"] == "has a turn by 'x10009'"
