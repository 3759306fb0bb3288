"""Rows of JSON: one on each line, or a list of them, read one by one."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from plumbline.data.byte_streams import LARGEST_ROW, MIB
from plumbline.data.messages import kind_of
from plumbline.data.raw_rows import RawRow, beginning_of, repaired, whole_text
from plumbline.errors import DataError

DEEPEST = 100
"""Levels of lists and objects within each other that a row may have."""
TOO_LONG = f"is longer than {LARGEST_ROW // MIB} MiB, the most that a row may have"
_TOO_DEEP = f"is nested more than {DEEPEST} levels deep"
_SPACE = re.compile(r"\s*")
#: Under which name a file that is one object tends to hold its rows.
_CONTAINERS = (
    "data", "rows", "examples", "records", "train", "test", "validation", "instances", "dataset",
    "samples", "results", "questions",
)  # fmt: skip


def _integer(text: str) -> int | float:
    """Return a whole number; one of hundreds of digits becomes a float, and thus infinite."""
    return int(text) if len(text) < 309 else float(text)  # what a float holds


class _RepeatedKeyError(ValueError):
    """An object has a key twice, of which JSON readers keep one or the other."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _RepeatedKeyError(f"has {whole_text(twice)[:200]!r} twice in one object")
    return held


_DECODER = json.JSONDecoder(parse_int=_integer, object_pairs_hook=_object)
_LENIENT_DECODER = json.JSONDecoder(parse_int=_integer)


def json_rows(stream: BinaryIO, path: Path, name: str) -> Iterator[RawRow]:
    """Yield the rows of JSON lines or of a list, whichever the text begins as."""
    head = stream.peek(4096)[:4096].lstrip()  # type: ignore[attr-defined]
    if head.startswith(b"["):
        yield from _rows_of_document(stream, path)
        return
    lines = not _is_spread_over_lines(head, name)
    rows = iter(_rows_of_lines(stream) if lines else _rows_of_document(stream, path))
    first, second = list(islice(rows, 1)), list(islice(rows, 1))
    if first and not second:
        _refuse_container(first[0].record, path)
    yield from chain(first, second, rows)


def _is_spread_over_lines(head: bytes, name: str) -> bool:
    """Return whether a text of objects has them on several lines each, as far as it can be seen."""
    line, end, _ = head.partition(b"\n")
    if not head.startswith(b"{") or not end:
        return False
    if line.strip() == b"{" or not name.endswith(".json"):
        return line.strip() == b"{"
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return line.rstrip()[-1:] in (b"{", b"[", b",", b":")
    return False


def _rows_of_lines(stream: BinaryIO) -> Iterator[RawRow]:
    number = 0
    while line := stream.readline(LARGEST_ROW + 1):
        number += 1
        if len(line) > LARGEST_ROW:
            yield RawRow(number, f"line {number}", None, TOO_LONG, beginning_of(line))
            while line and not line.endswith(b"\n"):
                line = stream.readline(LARGEST_ROW)
        elif line.strip():
            yield _row_of(line, number)


def _row_of(line: bytes, number: int) -> RawRow:
    place = f"line {number}"
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8")  # of files put together
        record = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1})"
    except RecursionError:
        problem = _TOO_DEEP
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at character {error.pos + 1}"
    except _RepeatedKeyError as error:
        problem = str(error)
    else:
        return _checked(record, number, place, text)
    return RawRow(number, place, None, problem, beginning_of(line))


def _checked(record: Any, number: int, place: str, text: str) -> RawRow:
    """Return a row that is an object, is not nested too deeply and holds no half character."""
    if not isinstance(record, Mapping):
        problem = f"is {kind_of(record)}, not an object with columns"
        return RawRow(number, place, None, problem, beginning_of(text))
    if text.count("[") + text.count("{") > DEEPEST and _is_deeper(record, DEEPEST):
        return RawRow(number, place, None, _TOO_DEEP, beginning_of(text))
    return repaired(RawRow(number, place, record), text)


def _is_deeper(value: Any, levels: int) -> bool:
    if levels == 0:
        return True
    within = value.values() if isinstance(value, dict) else value
    return any(_is_deeper(held, levels - 1) for held in within if isinstance(held, dict | list))


class _Text:
    """A text that is read bit by bit, and what of it is still to be parsed."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._lines = 1
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> None:
        """Read on: as much again as is waiting, so that a long row is not parsed too often."""
        content = self._stream.read(max(MIB, len(self.text) - self.at))
        self.ended = not content
        try:
            added = self._decoder.decode(content, self.ended)
        except UnicodeDecodeError as error:
            line = self._lines + content[: error.start].count(b"\n")
            raise DataError(not_utf8(self._path, f"line {line}")) from None
        self._lines += content.count(b"\n")
        self.text, self.at = self.text[self.at :] + added, 0

    def next_character(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space is not None else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def value(self, number: int) -> RawRow:
        """Return the next value as a row."""
        decoder, repeated = _DECODER, ""
        place = f"row {number}"
        while True:
            problem = "it does not end"
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # else a number may be longer
                    text, self.at = self.text[self.at : end], end
                    if repeated:
                        return RawRow(number, place, None, repeated, beginning_of(text))
                    return _checked(value, number, place, text)
            except _RepeatedKeyError as error:  # again, to find where the row ends
                decoder, repeated = _LENIENT_DECODER, str(error)
                continue
            except json.JSONDecodeError as error:
                problem = error.msg
            except RecursionError:
                raise DataError(f"{self._path}, row {number} {_TOO_DEEP}.") from None
            if self.ended:
                raise DataError(
                    f"{self._path} cannot be read: row {number} is not JSON: {problem}. The file "
                    "is damaged or was cut off there: fetch or save it again."
                )
            if len(self.text) - self.at > LARGEST_ROW:
                raise DataError(
                    f"{self._path} cannot be read: row {number} {TOO_LONG}, or it is not JSON "
                    f"({problem})."
                )
            self.more()


def _rows_of_document(stream: BinaryIO, path: Path) -> Iterator[RawRow]:
    """Yield the rows of a list, or of objects one after the other, each on several lines."""
    text = _Text(stream, path)
    is_list = text.next_character() == "["
    text.at += is_list
    number = 0
    while (character := text.next_character()) and not (is_list and character == "]"):
        if is_list and number and character == ",":
            text.at += 1
            text.next_character()
        number += 1
        yield text.value(number)
    if is_list and not character:
        raise DataError(
            f"{path} cannot be read: its list does not end. The file was cut off after row "
            f"{number}: fetch or save it again."
        )
    text.at += 1
    if is_list and text.next_character():
        raise DataError(
            f"{path} cannot be read: something stands after its list of {number} rows. A file "
            "holds one list of rows, or one row on each line."
        )


def _refuse_container(record: Mapping[str, Any] | None, path: Path) -> None:
    """Refuse a single object that holds the rows under one of its keys."""
    for name in _CONTAINERS:
        held = (record or {}).get(name)
        if isinstance(held, list) and held and isinstance(held[0], Mapping):
            raise DataError(
                f"{path} holds one object, not a list of rows: its rows seem to stand under "
                f"{name!r}. Save that list by itself, or one row on each line (JSON lines), for "
                f"example by: jq -c '.{name}[]' {path.name} > rows.jsonl"
            )


def not_utf8(path: Path, place: str) -> str:
    """Return what to do about a text in an encoding that cannot be told."""
    return (
        f"{path}, {place} is not UTF-8. Save the file as UTF-8, for example by: "
        f"iconv -f ENCODING -t UTF-8 {path.name} > utf8-{path.name}"
    )
