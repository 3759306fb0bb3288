"""Tables of labels in any usual shape: who said what about which item.

*Wide*: each row is an item, each person a column. *Long*: each row is one vote, with columns for
the item, the person and the label. *Labels*: the records that Plumbline itself writes. Which
columns are meant is guessed where their names, or what stands in them, make it clear; otherwise
the error names the columns that are there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from annotation.vote_table import Vote, VoteTable, look_alikes
from plumbline.data.files import read_rows
from plumbline.data.label_formats import ITEM_NAMES, PERSON_NAMES, VOTE_NAMES
from plumbline.data.labels import LABELS_FILE, Label, read_labels
from plumbline.errors import ConfigError, DataError

Form = Literal["wide", "long"]
#: By which Plumbline's own labels are known.
OWN_COLUMNS = frozenset(("pair_id", "annotator", "source", "choice", "shown_first", "purpose"))
_NUMBERED_PERSON = re.compile(
    rf"(?:{'|'.join((*PERSON_NAMES, 'expert', 'human', 'participant'))})[ _.-]?\d+", re.IGNORECASE
)
#: Texts that say that there is no vote, beside an empty cell and null.
NO_VOTE = (
    "NA", "N/A", "N.A.", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "Null", "null", "None",
)  # fmt: skip
#: A column with more different values than this is not guessed to be somebody's votes.
_FEW = 10
#: Nor is it taken for labels where somebody says so.
_TOO_MANY = 100


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. What is empty is to be guessed."""

    people: tuple[str, ...] = ()
    """One a person, in a wide table."""
    item: tuple[str, ...] = ()
    """One or several that name the item together."""
    person: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class LabelTable:
    """The votes in a file, and how they were found there."""

    votes: VoteTable
    form: Form
    columns: Columns
    guessed: tuple[str, ...] = ()
    """Which of the columns were guessed."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """TableRows without a vote, by what stands in them."""
    look_alikes: tuple[tuple[str, ...], ...] = ()
    """Categories that differ in capitals alone; they are taken as different."""
    people_alike: tuple[tuple[str, ...], ...] = ()
    """People whose names differ in capitals alone, which are counted as different ones."""


def is_own_labels(path: Path) -> bool:
    """Return whether a path is where Plumbline's own labels lie: an artefact's folder or file."""
    return path.is_dir() or path.name == LABELS_FILE


def read_own_labels(path: Path) -> list[Label]:
    """Read Plumbline's own labels from an artefact's folder, or from the file in it."""
    import pyarrow as pa

    file = path / LABELS_FILE if path.is_dir() else path
    if not file.exists():
        raise DataError(
            f"There is no {file}. Give a table of labels, or the folder of a labels artefact."
        )
    try:
        return read_labels(file.parent)
    except (TypeError, KeyError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{file} does not hold labels as Plumbline writes them: {error}. A table of another "
            f"make is read under any other name than {LABELS_FILE}."
        ) from None


class TableRow(NamedTuple):
    """A row of a table: where it stands in the file, and its columns."""

    place: str
    record: Mapping[str, Any]


def read_table(path: Path) -> list[TableRow]:
    """Read every row of a table. Raises `DataError` with the first one that cannot be read."""
    rows = []
    for row in read_rows(path):
        if row.record is None:
            raise DataError(f"{path}, {row.place} {row.problem}.")
        rows.append(TableRow(row.place, row.record))
    if not rows:
        raise DataError(f"{path} has no rows.")
    return rows


def read_votes(path: Path, columns: Columns = Columns(), no_vote: Sequence[str] = ()) -> LabelTable:
    """Read a file of labels of any kind that is read (docs/formats.md).

    ``no_vote`` are texts that say that there is no vote, beside the usual ones (`NO_VOTE`).

    Raises `ConfigError` where the columns columns for contradict each other, and `DataError`, with
    file and row, where the file is not as they say or where they cannot be guessed.
    """
    if columns.people and (columns.person or columns.label):
        raise ConfigError(
            "--people is for a table with one column per person; --person and --label are for one "
            "with a row per vote. Give one or the other."
        )
    by_row = [name for name in (*columns.item, columns.person, columns.label) if name is not None]
    twice = next((name for name in by_row if by_row.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"--item, --person and --label name the column {twice!r} more than once. Each is "
            "another column."
        )
    rows = read_table(path)
    names = list(dict.fromkeys(column for row in rows for column in row.record))
    if columns == Columns() and set(names) >= OWN_COLUMNS:
        raise DataError(
            f"{path} seems to hold labels as Plumbline writes them, in which gold items and "
            f"repeats are no votes. Name it {LABELS_FILE}, or name its columns to count every row."
        )
    _require(path, names, columns)
    reader = _Reader(path, rows, frozenset((*NO_VOTE, *no_vote)))
    chosen = reader.choose(names, columns)
    if chosen.people:
        votes = reader.wide(chosen, own_items=bool(columns.item))
    else:
        votes = reader.long(chosen)
    if not votes.categories:
        raise DataError(f"{path} has {len(rows)} rows, but no vote in {_listed_votes(chosen)}.")
    if len(votes.categories) > _TOO_MANY:
        raise DataError(
            f"{path}: {_listed_votes(chosen)} holds {len(votes.categories)} different values, such "
            f"as {', '.join(map(repr, votes.categories[:3]))}. These are no labels; name other "
            "columns."
        )
    return LabelTable(
        votes,
        "wide" if chosen.people else "long",
        chosen,
        guessed=tuple(
            column.name
            for column in fields(Columns)
            if getattr(chosen, column.name) != getattr(columns, column.name)
        ),
        missing=dict(reader.missing),
        look_alikes=look_alikes(votes.categories),
        people_alike=look_alikes(votes.people),
    )


def _require(path: Path, present: Sequence[str], columns: Columns) -> None:
    """Refuse names of columns that are not there."""
    for option, names in (
        ("--people", columns.people),
        ("--item", columns.item),
        ("--person", (columns.person,)),
        ("--label", (columns.label,)),
    ):
        for name in names:
            if name is None or name in present:
                continue
            close = difflib.get_close_matches(name, present, n=2)
            raise DataError(
                f"{path} has no column {name!r} ({option}). "
                + (f"Did you mean {' or '.join(map(repr, close))}? " if close else "")
                + f"Its columns are: {_listed(present)}."
            )
        if len(set(names)) < len(names):
            raise ConfigError(f"{option} names a column twice: {', '.join(map(str, names))}.")


class _Reader:
    """Reads the votes of a table, and counts the cells without one by what stands in them."""

    def __init__(self, path: Path, rows: Sequence[TableRow], no_vote: frozenset[str]) -> None:
        self._path, self._rows, self._no_vote = path, rows, no_vote
        self.missing: Counter[str] = Counter()

    def choose(self, names: Sequence[str], columns: Columns) -> Columns:
        """Complete the columns that were columns for by those that are meant clearly."""
        item = columns.item or tuple(_usual(names, ITEM_NAMES)[:1])
        if columns.people:
            return replace(columns, item=item)
        people = [columns.person] if columns.person else _usual(names, PERSON_NAMES)
        labels = [columns.label] if columns.label else _usual(names, VOTE_NAMES)
        by_row = bool(item) and len(people) == 1 and len(labels) == 1
        numbered = tuple(
            column for column in names if _NUMBERED_PERSON.fullmatch(column) and column not in item
        )
        by_column = len(numbered) > 1 and not (columns.person or columns.label)
        if by_row and not by_column:
            return Columns(item=item, person=people[0], label=labels[0])
        if by_column and not by_row:
            return Columns(people=numbered, item=item)
        if not (by_row or by_column or columns.person or columns.label):
            alike = self._columns_alike(names, item)
            if alike is not None:
                return alike
        raise DataError(
            f"{self._path}: it is not clear which columns hold the votes. Its columns are: "
            f"{_listed(names)}. Say --people with the columns of a table with a column per person "
            "(ana,ben), or --item, --person and --label for a table with one row per vote"
            + (f"; several could be the person: {_listed(people)}" if len(people) > 1 else "")
            + (f"; several could be the label: {_listed(labels)}" if len(labels) > 1 else "")
            + "."
        )

    def _columns_alike(self, names: Sequence[str], item: tuple[str, ...]) -> Columns | None:
        """Take a table for wide whose columns share a few values, but for one that names items."""
        values = {
            column: {
                text
                for row in self._rows
                if (text := self._text(row.record.get(column), self._no_vote)[0]) is not None
            }
            for column in names
            if column not in item
        }
        few = {column: kinds for column, kinds in values.items() if 0 < len(kinds) <= _FEW}
        others = [column for column in values if column not in few]
        if not item and len(others) == 1:
            item, others = (others[0],), []
        together = Counter(kind for kinds in few.values() for kind in kinds)
        shared = all(any(together[kind] > 1 for kind in kinds) for kinds in few.values())
        if others or len(few) < 2 or len(together) > _FEW or not shared:
            return None
        return Columns(people=tuple(few), item=item)

    def wide(self, columns: Columns, *, own_items: bool) -> VoteTable:
        """Read rows that are items. A guessed item column counts only where it tells rows apart."""
        items = [self._item(row, columns.item) if columns.item else row.place for row in self._rows]
        twice = _first_repeated(items)
        if twice is not None and own_items:
            first, second = (self._rows[number].place for number in twice)
            raise DataError(
                f"{self._path}: {first} and {second} are both the item {items[twice[0]]!r}, but "
                "with one column per person an item has one row. Name more columns in "
                "--item, or none."
            )
        if twice is not None:
            items = [row.place for row in self._rows]
        votes = [
            Vote(name, person, category)
            for name, row in zip(items, self._rows, strict=True)
            for person in columns.people
            if (category := self._category(row, person)) is not None
        ]
        return VoteTable.of(votes, items=items, people=columns.people)

    def long(self, columns: Columns) -> VoteTable:
        """Read rows that are votes."""
        assert columns.person is not None and columns.label is not None
        seen: dict[tuple[str, str], str] = {}
        items: dict[str, None] = {}
        votes = []
        for row in self._rows:
            item, person = self._item(row, columns.item), self._item(row, (columns.person,))
            items[item] = None
            category = self._category(row, columns.label)
            if category is None:
                continue
            if (item, person) in seen:
                raise DataError(
                    f"{self._path}: {seen[item, person]} and {row.place} are both a vote of "
                    f"{person!r} on {item!r}. Agreement between people needs one vote each: leave "
                    "one out, or name more columns in --item if these are different items."
                )
            seen[item, person] = row.place
            votes.append(Vote(item, person, category))
        return VoteTable.of(votes, items=list(items))

    def _item(self, row: TableRow, columns: Sequence[str]) -> str:
        """Return what names an item or a person in a row."""
        parts = []
        for column in columns:
            text, empty = self._text(row.record.get(column), frozenset(NO_VOTE))
            if text is None:
                raise DataError(
                    f"{self._path}, {row.place}: {column!r} is {empty}, so it is not known whose "
                    "vote this is or on what."
                )
            parts.append(text)
        return " / ".join(parts)

    def _category(self, row: TableRow, column: str) -> str | None:
        """Return a vote, or None where there is none; which is counted."""
        value = row.record.get(column)
        if isinstance(value, Mapping) or (
            isinstance(value, Sequence) and not isinstance(value, str)
        ):
            raise DataError(
                f"{self._path}, {row.place}: {column!r} holds {type(value).__name__} and not a "
                f"label: {str(value)[:80]}"
            )
        text, empty = self._text(value, self._no_vote)
        if text is None:
            self.missing[empty] += 1
        return text

    def _text(self, value: Any, nothing: frozenset[str]) -> tuple[str | None, str]:
        """Return a value as text, or None and what stands there instead, such as ``nothing``.

        The same number is the same text however it was written: a spreadsheet with a hole in a
        column of whole numbers saves ``1.0`` for 1.
        """
        if isinstance(value, bool):
            return str(value).lower(), ""
        if isinstance(value, float):
            if math.isnan(value):
                return None, "NaN"
            return str(int(value)) if value.is_integer() else repr(value), ""
        text = "" if value is None else str(value).strip()
        if not text:
            return None, "empty"
        if text in nothing:
            return None, text
        return re.sub(r"^(-?\d+)\.0+$", r"\1", text), ""


def _usual(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the columns that bear a usual name, the more telling first."""
    by_name = {re.sub(r"[\s-]+", "_", column.strip().lower()): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def _first_repeated(names: Sequence[str]) -> tuple[int, int] | None:
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        if name in first:
            return first[name], number
        first[name] = number
    return None


def _listed_votes(columns: Columns) -> str:
    if columns.people:
        return f"the columns {_listed(columns.people)}"
    return f"the column {columns.label!r}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
