"""Files as people save them: every kind, packed or not, in several encodings, whole or damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import subprocess
import sys
import textwrap

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from plumbline.data.files import FILE_KINDS, read_records, read_rows
from plumbline.errors import DataError

ROWS = [{"a": 1, "b": "é"}, {"a": 2, "b": "喵"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def table_bytes(write) -> bytes:
    buffer = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def stream(table, buffer):
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)


SAVED = {
    "rows.jsonl": LINES.encode(),
    "rows.ndjson": LINES.replace("\n", "\r\n").encode(),
    "rows.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": LINES.encode(),
    "list.jsonl": json.dumps(ROWS).encode(),
    "one after the other.json": "\n".join(json.dumps(row, indent=1) for row in ROWS).encode(),
    "no ending": LINES.encode(),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES.encode(),
    "mark.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "utf16.jsonl": LINES.encode("utf-16"),
    "utf16 without a mark.json": json.dumps(ROWS).encode("utf-16-le"),
    "utf32.json": json.dumps(ROWS).encode("utf-32"),
    "rows.jsonl.gz": gzip.compress(LINES.encode(), mtime=0),
    "gzipped.jsonl": gzip.compress(LINES.encode(), mtime=0),
    "rows.jsonl.bz2": bz2.compress(LINES.encode()),
    "rows.jsonl.xz": lzma.compress(LINES.encode()),
    "two streams.jsonl.bz2": b"".join(map(bz2.compress, LINES.encode().splitlines(True))),
    "two streams.jsonl.xz": b"\0\0\0\0".join(map(lzma.compress, LINES.encode().splitlines(True))),
    "rows.jsonl.zst": pa.compress(LINES.encode(), "zstd", asbytes=True),
    "two frames.jsonl.zst": b"".join(
        pa.compress((json.dumps(row) + "\n").encode(), "zstd", asbytes=True) for row in ROWS
    ),
    "rows.parquet": table_bytes(pa.parquet.write_table),
    "parquet by another name": table_bytes(pa.parquet.write_table),
    "rows.feather": table_bytes(pa.feather.write_feather),
    "rows.arrow": table_bytes(stream),
}


@pytest.mark.parametrize("name", SAVED)
def test_every_kind_of_file_holds_the_same_rows(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(SAVED[name])
    assert [row for _, row in read_records(path)] == ROWS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "a,b\n1,é\n2,喵\n"),
        ("semicolons.csv", "a;b\r\n1;é\r\n\r\n2;喵\r\n"),
        ("rows.tsv", "a\tb\n1\té\n2\t喵\n"),
        ("quoted.csv", 'a,b\n"1","é"\n"2","喵"\n'),
        ("mark.csv", "\ufeffa,b\n1,é\n2,喵\n"),
    ],
)
def test_separated_text_is_read_as_text(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert [row for _, row in read_records(path)] == [
        {column: str(held) for column, held in row.items()} for row in ROWS
    ]
    path.write_bytes(text.encode("utf-16"))
    assert [row["b"] for _, row in read_records(path)] == ["é", "喵"]


def test_rows_keep_the_numbers_that_an_editor_shows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [(row.number, row.place) for row in read_rows(path)] == [(1, "line 1"), (3, "line 3")]
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n"one\ntwo",1\n\nthree,2\n')
    assert [row.place for row in read_rows(path)] == ["line 2", "line 5"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": ', "is not JSON: Expecting value at character 8"),
        (b"[1, 2]", "is a list, not an object with columns"),
        (b"7", "is a number, not an object"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 0xff at 8)"),
        (b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", "is nested more than 100 levels deep"),
        (b'{"a": ' + b"[" * 150 + b"]" * 150 + b"}", "is nested more than 100 levels deep"),
        (b'{"a": "' + b"x" * (17 * 2**20) + b'"}', "is longer than 16 MiB"),
    ],
    ids=["cut", "list", "number", "bytes", "very deep", "deep", "long"],
)
def test_one_damaged_line_is_one_row_less(tmp_path, line, problem):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, damaged, last = read_rows(path)
    assert (first.record, last.record, last.number) == ({"a": 1}, {"a": 3}, 3)
    assert damaged.record is None
    assert damaged.problem.startswith(problem)
    assert len(damaged.text) <= 200
    with pytest.raises(DataError, match=r"rows.jsonl, line 2 is n|rows.jsonl, line 2 is (a|l)"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"1,2,3\n", "has 3 cells, but the header names 2 columns"),
        (b"1,\xff\n", "is not UTF-8 in 'b'"),
    ],
)
def test_one_damaged_line_of_a_table_is_one_row_less(tmp_path, line, problem):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"a,b\n1,2\n" + line + b"3,4\n")
    rows = list(read_rows(path))
    assert [row.record for row in rows] == [{"a": "1", "b": "2"}, None, {"a": "3", "b": "4"}]
    assert rows[1].problem.startswith(problem)


def test_half_characters_become_the_mark_for_no_character(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(r'{"a": "smile \ud83d", "\ud83d": ["\ude00"], "b": "\ud83d\ude00"}' + "\n")
    (row,) = read_rows(path)
    assert row.record == {"a": "smile \ufffd", "\ufffd": ["\ufffd"], "b": "😀"}
    assert row.is_repaired
    path.write_text(r'{"a": "\ud83d\ude00 and \\ud83d"}' + "\n")
    (row,) = read_rows(path)
    assert row.record == {"a": "😀 and \\ud83d"}
    assert not row.is_repaired


def test_numbers_without_end_are_infinite(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": ' + "9" * 5000 + ', "m": 12345678901234567890, "f": 1e400}\n')
    (row,) = read_rows(path)
    assert row.record == {"n": float("inf"), "m": 12345678901234567890, "f": float("inf")}


PARQUET, STREAM = table_bytes(pa.parquet.write_table), table_bytes(stream)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1xxxx", "is not Parquet, or it is damaged"),
        ("x.parquet", b"no parquet", "is not Parquet, or it is damaged"),
        ("x.parquet", PARQUET[:-20], "is not Parquet, or it is damaged"),
        ("x.parquet", b"", "is empty"),
        ("x.arrow", b"no arrow", "is not Arrow, or it is damaged"),
        ("x.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "cannot be unpacked"),
        ("x.jsonl.gz", b"plain", "it is no gzip file"),
        ("x.jsonl.zst", b"plain", "it is no zstd file"),
        ("x.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"x" * 20, "cannot be unpacked"),
        ("x.jsonl.bz2", bz2.compress(LINES.encode()) + b"BZh9 damaged", "cannot be unpacked"),
        ("x.jsonl.xz", lzma.compress(LINES.encode()) + b"behind it", "cannot be unpacked"),
        ("x.jsonl.xz", lzma.compress(LINES.encode())[:-9], "it ends in the midst of its content"),
        ("x.jsonl.bz2", bz2.compress(gzip.compress(LINES.encode())), "packed twice .gzip within"),
        ("x.jsonl.gz.gz", gzip.compress(gzip.compress(LINES.encode())), "packed twice"),
        ("x.parquet.gz", gzip.compress(PARQUET), "is parquet packed by gzip, .* Unpack it"),
        ("x.arrow", STREAM[:-8], "has no mark of its end behind row 2: it was cut off there"),
        ("x.arrow", STREAM + STREAM, "bytes stand behind its 2 rows"),
        ("x.json", b"[", "its list does not end"),
        ("x.json", b'[{"a": 1}, {"a"', "row 2 is not JSON"),
        ("x.json", b'[{"a": 1}', "its list does not end"),
        ("x.json", b'[{"a": 1}] {"b": 2}', "something stands after its list of 1 rows"),
        ("x.json", b'[{"a": "\xff"}]', r"line 1 is not UTF-8. .* iconv"),
        ("x.json", b'{"data": [{"a": 1}]}', "rows seem to stand under 'data'.*jq -c"),
        ("x.json", b'{\n"version": 1,\n"data": [\n{"a": 1}]}', "rows seem to stand under 'data'"),
        ("x.csv", b'a,b\n"1,2\n', "line 2 is not CSV"),
        ("x.csv", b"a,a\n1,2\n", "names 'a' more than once"),
        ("x.csv", b"a\xff,b\n1,2\n", "line 1 is not UTF-8"),
        ("x.xlsx", b"PK\x03\x04", "Save its sheet as CSV"),
        ("x.bin", b"\x00\x01", "the ending '.bin' is none that can be read: .parquet"),
    ],
)
def test_a_damaged_file_says_what_to_do(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_rows(path))
    assert name in str(error.value)


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path):
    """A file that is mapped into memory would end the process where it is cut."""
    path = tmp_path / "x.arrow"
    with pa.ipc.new_stream(str(path), pa.schema([("a", pa.string())])) as writer:
        for _ in range(4):
            writer.write_batch(pa.record_batch([["x" * 1000] * 500], names=["a"]))
    rows = read_rows(path)
    assert next(rows).number == 1
    with path.open("r+b") as file:
        file.truncate(600_000)
    with pytest.raises(DataError, match=r"x.arrow changed while it was read \(2,\d+,\d+ bytes"):
        list(rows)


def test_a_time_in_a_zone_that_nobody_knows_is_one_row_less(tmp_path):
    zone = pa.array([0, None], pa.timestamp("s", tz="Mars/Phobos"))
    pa.parquet.write_table(pa.table({"a": [1, 2], "at": zone}), tmp_path / "x.parquet")
    first, second = read_rows(tmp_path / "x.parquet")
    assert first.problem == "has a value under 'at' that cannot be read: 'Mars/Phobos'"
    assert second.record == {"a": 2, "at": None}


def test_a_list_keeps_the_rows_before_its_damage(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"a": 1}, 5, {"a": 2}, {"a": oops}]')
    rows = read_rows(path)
    assert [next(rows).record for _ in range(3)] == [{"a": 1}, None, {"a": 2}]
    with pytest.raises(DataError, match="row 4 is not JSON: Expecting value"):
        next(rows)


def test_a_list_longer_than_what_is_read_at_once(tmp_path):
    rows = [{"n": n, "text": "x" * 5000} for n in range(1000)]  # 5 MB, read a megabyte at a time
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    assert [record for _, record in read_records(path)] == rows


def test_what_unpacks_without_end_is_refused(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b"0" * 60 * 2**20))
    code = f"""
        from pathlib import Path
        from plumbline.data.files import read_rows
        from plumbline.errors import DataError
        try:
            print(sum(1 for row in read_rows(Path({str(path)!r}))))
        except DataError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    assert "more than 100 times its size" in done.stdout, done.stderr


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        list(read_rows(tmp_path / "none.jsonl"))


def test_the_kinds_of_file_have_endings_of_their_own():
    endings = [ending for kind in FILE_KINDS.values() for ending in kind.endings]
    assert len(set(endings)) == len(endings)
