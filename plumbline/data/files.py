"""Reading files of rows: each kind of file is one row of a table.

What a file is decides its content where that is plain (Parquet, Arrow, packed files, JSON), and its
name otherwise. Rows come one after the other; a row that cannot be read says why, and
the reading continues behind it where it can.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from plumbline.data.byte_streams import (
    LARGEST_ROW,
    MIB,
    PACKINGS,
    beginning,
    open_bytes,
    plain_name,
)
from plumbline.data.json_rows import TOO_LONG, json_rows, not_utf8
from plumbline.data.raw_rows import HALF_CHARACTER, RawRow, beginning_of
from plumbline.errors import DataError
from plumbline.tables import Table

_SEPARATORS = ",;\t|"
_NAMED_SEPARATOR = re.compile(rb"\"?sep=([,;\t|])\"?")
_BATCH = 256
#: What each part of an Arrow stream begins with, and its end: a part without any length. Streams of
#: before 2019 have no such mark, and their end cannot be distinguished from padding.
_PART, _STREAM_END = b"\xff" * 4, b"\xff" * 4 + bytes(4)


@dataclass(frozen=True)
class FileKind:
    """A kind of file: its endings, how it begins, and how its rows are read."""

    name: str
    endings: tuple[str, ...]
    about: str
    read: Callable[[Path], Iterator[RawRow]]
    begins: bytes | None = None


def read_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a file of any kind in `FILE_KINDS`, packed or not.

    Raises `DataError` with the file and what to do where it cannot be read at all, or not any
    further.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path} (looked for from {Path.cwd()}).")
    state = _state(path)
    for row in kind_of_file(path).read(path):
        yield row
        if row.number % _BATCH == 0:
            _refuse_changed(path, state)
    _refuse_changed(path, state)


def _state(path: Path) -> tuple[int, int]:
    """Return a file's size and when it was last written."""
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _refuse_changed(path: Path, earlier: tuple[int, int]) -> None:
    """Refuse a file that is written while it is read: its rows would be of two states of it.

    One that is mapped into memory would end the process where it is cut (SIGBUS).
    """
    try:
        now = _state(path)
    except OSError:  # taken away; what is open is read on
        return
    if now != earlier:
        raise DataError(
            f"{path} changed while it was read ({earlier[0]:,} bytes at first, {now[0]:,} now). "
            "Try again once it is written."
        )


def read_records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield number and columns of each row; a row that cannot be read is a `DataError`."""
    for row in read_rows(path):
        if row.record is None:
            raise DataError(f"{path}, {row.place} {row.problem}.")
        yield row.number, row.record


def kind_of_file(path: Path) -> FileKind:
    """Return what kind of file this is, by its first bytes or else by its name."""
    first, name = beginning(path), plain_name(path)
    for kind in FILE_KINDS.values():
        if kind.begins is not None and first.startswith(kind.begins):
            return kind
    for kind in FILE_KINDS.values():
        if name.endswith(kind.endings):
            if kind.begins is not None and not first:
                raise DataError(f"{path} is empty.")
            packing = next((p for p in PACKINGS.values() if first.startswith(p.begins)), None)
            if kind.begins is not None and packing is not None:
                raise DataError(
                    f"{path} is {kind.name} packed by {packing.name}, and only texts are unpacked "
                    "here. Unpack it, and give what comes of that."
                )
            return kind
    if first.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return FILE_KINDS["json"]
    ending = Path(name).suffix
    if ending in {packing.ending for packing in PACKINGS.values()}:
        raise DataError(
            f"{path} seems to be packed twice. Unpack it once, and give what comes of that."
        )
    endings = ", ".join(e for kind in FILE_KINDS.values() for e in kind.endings)
    hint = " Save its sheet as CSV." if ending in (".xlsx", ".xls", ".ods") else ""
    raise DataError(
        f"{path}: the ending {ending!r} is none that can be read: {endings}; the text ones also "
        f"packed ({', '.join(p.ending for p in PACKINGS.values())}).{hint}"
    )


def _read_json(path: Path) -> Iterator[RawRow]:
    with open_bytes(path) as stream:
        yield from json_rows(stream, path, plain_name(path))


def _read_separated(separators: str) -> Callable[[Path], Iterator[RawRow]]:
    def read(path: Path) -> Iterator[RawRow]:
        with open_bytes(path) as stream:
            yield from _separated_rows(stream, path, separators)

    return read


def _separated_rows(stream: BinaryIO, path: Path, separators: str) -> Iterator[RawRow]:
    """Yield the rows of a text whose columns are separated, below a header that names them."""
    head = stream.peek(65536)[:65536].lstrip().splitlines()  # type: ignore[attr-defined]
    first = head[0] if head else b""
    separator = max(separators, key=lambda mark: first.count(mark.encode()))
    text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
    if (named := _NAMED_SEPARATOR.fullmatch(first)) is not None:  # Excel's first line
        separator = named[1].decode()
        text.readline()
    csv.field_size_limit(LARGEST_ROW)
    reader = csv.reader(text, delimiter=separator, strict=True)
    columns: Sequence[str] = ()
    start = 1 if named is None else 2
    above = start - 1
    try:
        for cells in reader:
            line, start = start, above + reader.line_num + 1
            if not cells:  # a blank line
                continue
            if not columns:
                columns = _header(cells, path)
            else:
                yield _separated_row(cells, columns, line)
    except csv.Error as error:
        raise DataError(
            f"{path} cannot be read: line {start} is not CSV: {error}. A quotation mark may be "
            f"missing there, or a cell is longer than {LARGEST_ROW // MIB} MiB."
        ) from None


def _separated_row(cells: Sequence[str], columns: Sequence[str], line: int) -> RawRow:
    place, shown = f"line {line}", beginning_of(",".join(cells))
    if len(cells) != len(columns):
        problem = (
            f"has {len(cells)} cells, but the header names {len(columns)} columns: a separator or "
            "a quotation mark may be missing"
        )
        return RawRow(line, place, None, problem, shown)
    for column, cell in zip(columns, cells, strict=True):
        if not cell.isascii() and HALF_CHARACTER.search(cell):
            return RawRow(line, place, None, f"is not UTF-8 in {column!r}", shown)
    return RawRow(line, place, dict(zip(columns, cells, strict=True)))


def _header(cells: Sequence[str], path: Path) -> Sequence[str]:
    columns = [cell.strip() for cell in cells]
    if any(HALF_CHARACTER.search(name) for name in columns):
        raise DataError(not_utf8(path, "line 1"))
    _refuse_repeated(columns, path, " The first line must be a header with different names.")
    return columns


def _refuse_repeated(columns: Sequence[str], path: Path, hint: str = "") -> None:
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(
            f"{path}: its header names {', '.join(map(repr, twice))} more than once, so its "
            f"columns cannot be distinguished.{hint}"
        )


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _refuse_repeated(file.schema_arrow.names, path)
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                _refuse_large(group.total_byte_size, group.num_rows, path)
            yield from _numbered(file.iter_batches(batch_size=_BATCH))
    except (pa.ArrowException, OSError) as error:
        raise DataError(_damaged(path, "Parquet", error)) from None


def _read_arrow(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                file = pa.ipc.open_file(source)
                batches: Iterable[Any] = map(file.get_batch, range(file.num_record_batches))
            except pa.ArrowInvalid:  # as `datasets` writes it: a stream
                source.seek(0)
                file = batches = pa.ipc.open_stream(source)
            _refuse_repeated(file.schema.names, path)
            rows = 0
            for row in _numbered(batches):
                rows = row.number
                yield row
            if isinstance(file, pa.RecordBatchStreamReader):
                _refuse_more(path, source.size() - source.tell(), rows)
                refuse_cut_stream(path, f" behind row {rows}")
    except (pa.ArrowException, OSError) as error:
        raise DataError(_damaged(path, "Arrow", error)) from None


def refuse_cut_stream(path: Path, rows: str = "") -> None:
    """Refuse a stream of Arrow without the mark that ends it.

    Arrow takes the end of the file for the end of the stream, and so a part of it for the whole.
    ``rows``: what was read, for the error.
    """
    with path.open("rb") as file:
        is_marked = file.read(len(_PART)) == _PART
        file.seek(max(0, path.stat().st_size - len(_STREAM_END)))
        if is_marked and file.read() != _STREAM_END:
            raise DataError(
                f"{path} has no mark of its end{rows}: it was cut off there, or is still being "
                "written. Fetch or save it again."
            )


def _refuse_more(path: Path, size: int, rows: int) -> None:
    """Refuse a stream of Arrow with something behind its end, which would not be read."""
    if size:
        raise DataError(
            f"{path} cannot be read: {size:,} bytes stand behind its {rows} rows, as where files "
            "were put together. Give each file by itself."
        )


def _numbered(batches: Iterable[Any]) -> Iterator[RawRow]:
    number = 0
    for batch in batches:
        batch = _with_plain_numbers(batch)
        for start in range(0, batch.num_rows, _BATCH):
            for record in _records_in(batch.slice(start, _BATCH)):
                number += 1
                place = f"row {number}"
                if isinstance(record, str):
                    yield RawRow(number, place, None, record)
                else:
                    yield RawRow(number, place, record)


def _with_plain_numbers(batch: Any) -> Any:
    """Return a batch with columns of decimals as floats, which the other formats have."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_decimal(field.type):
            numbers = batch.column(place).cast(pa.float64(), safe=False)
            batch = batch.set_column(place, field.name, numbers)
    return batch


def _records_in(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Yield the rows of a batch; of one with a value that Python does not have, what it is."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, LookupError):  # beyond the year 9999, no UTF-8, no such zone
        for place in range(batch.num_rows):
            yield _record_at(batch, place)


def _record_at(batch: Any, place: int) -> dict[str, Any] | str:
    record = {}
    for name in batch.schema.names:
        cell = batch.column(name)[place]
        try:
            record[name] = cell.as_py(maps_as_pydicts="strict")
        except KeyError as error:  # a map with a key twice: its pairs
            try:
                record[name] = cell.as_py()
            except LookupError:  # a time zone that nobody knows
                return f"has a value under {name!r} that cannot be read: {error}"
        except (ValueError, OverflowError) as error:
            return f"has a value under {name!r} that cannot be read: {error}"
    return record


def _refuse_large(size: int, rows: int, path: Path) -> None:
    if rows and size / rows > LARGEST_ROW:
        raise DataError(f"{path} cannot be read: a row of it {TOO_LONG}.")


def _damaged(path: Path, kind: str, error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (
        f"{path} is not {kind}, or it is damaged: {first.rstrip('.')}. Fetch or save it again; a "
        "text needs the ending .jsonl, .json, .csv or .tsv."
    )


FILE_KINDS = Table(
    "kind of file",
    (
        FileKind("parquet", (".parquet",), "a table in Parquet", _read_parquet, begins=b"PAR1"),
        FileKind(
            "arrow",
            (".arrow", ".feather"),
            "a table in Arrow or Feather, as a file or as the stream that `datasets` writes",
            _read_arrow,
            begins=b"ARROW1",
        ),
        FileKind(
            "json",
            (".json", ".jsonl", ".ndjson"),
            "one object on each line, or a list of objects, under either name",
            _read_json,
        ),
        FileKind(
            "csv",
            (".csv",),
            "a header, then cells separated by commas, semicolons, tabs or bars",
            _read_separated(_SEPARATORS),
        ),
        FileKind(
            "tsv", (".tsv", ".tab"), "a header, then cells separated by tabs", _read_separated("\t")
        ),
    ),
)
