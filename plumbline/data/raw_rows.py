"""A row as it stands in a file, before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

#: Half of a character that needs two code units, as cutting a text by length leaves it.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN = 200


class RawRow(NamedTuple):
    """A row of a file, or what is wrong with it."""

    number: int
    """From 1: the line of a text, the place in a list or table."""
    place: str
    """The same for people: ``line 7``, ``row 7``."""
    record: Mapping[str, Any] | None
    """By column; None where it cannot be read."""
    problem: str | None = None
    """Why it cannot be read."""
    text: str = ""
    """The beginning of a row that cannot be read."""
    is_repaired: bool = False
    """Whether half characters were replaced by U+FFFD."""


def beginning_of(text: bytes | str) -> str:
    """Return the beginning of a row that cannot be read, to be shown and kept."""
    start = text[:_SHOWN]
    return start.decode("utf-8", "replace") if isinstance(start, bytes) else whole_text(start)


def repaired(row: RawRow, written: str) -> RawRow:
    """Return a row without half characters, which no tokenizer and no table can hold.

    ``written`` is the JSON of the row: only an escape in it can bring one in.
    """
    if "\\u" not in written or not _ESCAPED_HALF.search(written):
        return row
    record = whole_characters(row.record)
    return row._replace(record=record, is_repaired=record != row.record)


def whole_characters(value: Any) -> Any:
    """Return a value with half characters in its texts replaced by U+FFFD."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, Mapping):
        return {whole_text(key): whole_characters(held) for key, held in value.items()}
    if isinstance(value, list):
        return [whole_characters(held) for held in value]
    return value


def whole_text(text: str) -> str:
    """Return a text with half characters replaced by U+FFFD."""
    return HALF_CHARACTER.sub("\ufffd", text)
