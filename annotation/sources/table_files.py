"""Reading a table, whatever it is written in, as rows that know where they stand in the file."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.data.files import read_records
from plumbline.errors import DataError

#: By the file's ending; the text ones may be gzipped (``.csv.gz``).
READABLE = (".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet")


class TableRow(NamedTuple):
    """A row of a table."""

    where: str
    """Where it stands: ``line 7`` of a text, ``row 7`` of a list."""
    cells: Mapping[str, Any]
    """By column."""


def read_table(path: Path) -> list[TableRow]:
    """Read every row. Raises `DataError` with file and row where one cannot be read."""
    if not path.exists():
        raise DataError(f"There is no file {path} (looked for from {Path.cwd()}).")
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in READABLE:
        raise DataError(
            f"{path}: the ending {kind!r} is none that can be read: {', '.join(READABLE)}, "
            "the text ones also with .gz."
        )
    if kind in (".csv", ".tsv", ".tab"):
        rows = _read_separated(path, kind)
    else:
        rows = _read_records(path, "line" if kind in (".jsonl", ".ndjson") else "row")
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def _read_separated(path: Path, kind: str) -> list[TableRow]:
    """Read comma-, semicolon- or tab-separated text with a header."""
    text = _text(path)
    header = text.lstrip().partition("\n")[0]
    separator = "\t" if kind != ".csv" else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: Sequence[str] = ()
    rows = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:  # a blank line
                continue
            if not columns:
                columns = _checked_header(path, cells)
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{path}, line {line} has {len(cells)} cells, but the header names "
                    f"{len(columns)} columns. Is a separator or a quotation mark missing?"
                )
            rows.append(TableRow(f"line {line}", dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{path}, line {start}: this is not {kind[1:].upper()}: {error}.") from None
    return rows


def _checked_header(path: Path, cells: Sequence[str]) -> Sequence[str]:
    columns = [cell.strip() for cell in cells]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(
            f"{path}: the header names {', '.join(map(repr, twice))} more than once, so its "
            "columns cannot be told apart. The first line must be a header with different names."
        )
    return columns


def _text(path: Path) -> str:
    """Return a file's text; a byte-order mark, as spreadsheets write it, is no part of it."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line} is not UTF-8. Save the table with that encoding."
        ) from None
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path} cannot be unpacked: {error}.") from None


def _read_records(path: Path, unit: str) -> list[TableRow]:
    """Read JSON, JSON lines or Parquet."""
    import pyarrow as pa

    rows = []
    try:
        for number, record in read_records(path):
            if not isinstance(record, Mapping):
                raise DataError(
                    f"{path}, {unit} {number} is {type(record).__name__}, not an object with "
                    "columns."
                )
            rows.append(TableRow(f"{unit} {number}", record))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not Parquet: {error}.") from None
    return rows
