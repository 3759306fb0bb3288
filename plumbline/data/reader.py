"""The one reader of data: from a source to examples for a use, with everything counted.

The format is decided once for a source, from its first rows; each row is then read by it. A row
that cannot be read is left out with its number and the reason. A column that is not read is
counted; where it changes what the row means, the row is left out under the column's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from plumbline.config import Config
from plumbline.data.column_guess import columns_to_give
from plumbline.data.examples import Example, NoPromptError, example_from
from plumbline.data.format import MEANINGFUL, PROMPT_PARTS, Format, Record, parts_in
from plumbline.data.formats import (
    FIRST_ROWS,
    FORMATS,
    MAPPED,
    columns_in,
    format_of,
    recognize,
    why_unknown,
)
from plumbline.data.messages import is_missing, unread_keys
from plumbline.data.part_values import has_something, why_no_truths
from plumbline.data.parts import PARTS, Columns, nearest
from plumbline.data.raw_rows import RawRow
from plumbline.data.sources import RowSource, as_source, source_at
from plumbline.data.uses import USES, Use
from plumbline.dropped import Dropped, LeftOut
from plumbline.errors import DataError
from plumbline.runs.calls import SourceFile

_MEANINGFUL_NAMES = frozenset(name for names in MEANINGFUL.values() for name in names)
#: Parts that change what a row means: a use that does not take them leaves the row out.
_BINDING = ("tools", "reasoning", "weight")
#: What a reader raises at a row that is not as its format says.
_UNFIT = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
#: What is kept of rows that are left out: so many characters of each, and so many rows whole.
_LARGEST_KEPT = 20_000
_MOST_KEPT = 10_000
_LONGEST_REASON = 500


class DataFormatConfig(Config):
    """How the rows of a file are read."""

    format: Annotated[str | None, FORMATS] = None
    """The format of the rows: a name from docs/formats.md, or your own function by its dotted path.
    Null: the format that most of the first rows are of."""
    columns: Columns = Field(default_factory=dict)
    """Which column holds which part of a row, where the file is of no known format:
    ``{prompt: question, response: best_answer}``. docs/formats.md lists the parts."""
    ignored_columns: tuple[str, ...] = ()
    """Columns to pass over although their names change what a row means (``system``, ``tools``,
    ``images`` and others); without this, rows that hold something there are left out."""


class ReadRow(NamedTuple):
    """An example, and where it stands in its source."""

    number: int
    place: str
    example: Example
    record: Record
    nth: int
    """Which of the examples that the row makes: 0 for the first."""
    columns: Mapping[str, str]
    """The column of each part."""


@dataclass
class ReadReport:
    """What became of the rows of a source."""

    origin: str
    format: str = ""
    unit: str = "row"
    """What rows are counted by: lines of a text, or rows."""
    rows: int = 0
    kept: int = 0
    """Rows of which an example was made."""
    dropped: LeftOut = field(default_factory=Dropped)
    columns_used: dict[str, str] = field(default_factory=dict)
    """Part by column."""
    columns_unused: Counter[str] = field(default_factory=Counter)
    """Rows that hold something in a column that is not read."""
    repaired: int = 0
    """Rows in which half characters were replaced by U+FFFD."""
    merged: int = 0
    """Rows that were added to an earlier one, whose prompt they have."""

    def notes(self) -> list[str]:
        """Return what is worth saying beside the rows that were left out."""
        notes = []
        if self.format:
            used = ", ".join(f"{column} ({part})" for column, part in self.columns_used.items())
            notes.append(
                f"{self.origin}: {self.rows} rows of the format {self.format}; read: {used}"
            )
        if self.columns_unused:
            unused = ", ".join(f"{name} ({n} rows)" for name, n in self.columns_unused.items())
            notes.append(f"columns that are not used: {unused}")
        return [*notes, *self.warnings()]

    def warnings(self) -> list[str]:
        """Return what was done to rows that are kept."""
        warnings = []
        if self.repaired:
            warnings.append(f"half characters were replaced by U+FFFD in {self.repaired} rows")
        if self.merged:
            warnings.append(
                f"{self.merged} rows repeat the prompt of an earlier one, which was given their "
                "references"
            )
        return warnings


class ExampleReader:
    """Reads the examples of a source, one by one; its ``report`` grows with them.

    ``also`` names columns of further parts, in any format. ``max_rows`` ends after so many rows,
    read or not. ``strict`` makes the first row that cannot be read a `DataError`. ``dropped`` takes
    those that cannot be read; for many rows a `DroppedFile`.
    """

    def __init__(
        self,
        source: RowSource | SourceFile | Path,
        use: Use,
        config: DataFormatConfig | None = None,
        *,
        also: Mapping[str, str] | None = None,
        max_rows: int | None = None,
        strict: bool = False,
        dropped: LeftOut | None = None,
    ) -> None:
        self._source, self._use, self._config = as_source(source), use, config or DataFormatConfig()
        self._also, self._strict, self._max_rows = also or {}, strict, max_rows
        self.report = ReadReport(
            self._source.name, dropped=Dropped() if dropped is None else dropped
        )
        self._format: Format | None = None
        self._columns: Mapping[str, str] = {}
        self._used: frozenset[str] = frozenset()
        self._why_no_labels: str | None = None

    def __iter__(self) -> Iterator[ReadRow]:
        rows = islice(self._source.rows(), self._max_rows)
        first = list(islice(rows, FIRST_ROWS))
        self._decide([row.record for row in first if row.record is not None])
        if first:
            self.report.unit = first[0].place.split()[0]
        for row in chain(first, rows):
            self.report.rows += 1
            yield from self._examples_of(row)

    def leave_out(self, row: RawRow | ReadRow, reason: str) -> None:
        """Count a row as left out; in a strict reader, raise `DataError` with it."""
        if self._strict:
            raise DataError(f"{self._source.place}, {row.place} {reason}.")
        if len(reason) > _LONGEST_REASON:  # it shows a value of the row
            reason = f"{reason[:_LONGEST_REASON]} …"
        record: Any = "not kept: many rows were left out"
        if len(self.report.dropped) < _MOST_KEPT:
            record = row.record if row.record is not None else getattr(row, "text", "")
            text = str(record)
            if len(text) > _LARGEST_KEPT:
                record = f"{text[:_LARGEST_KEPT]} … ({len(text)} characters)"
        self.report.dropped.add(self.report.origin, row.number, reason, record)

    def _decide(self, first: Sequence[Record]) -> None:
        """Decide on the format of the source, and which of its columns hold what."""
        config, names = self._config, columns_in(first)
        if not first:
            return
        if config.columns:
            form: Format | None = MAPPED
        else:
            form = recognize(first, self._use) if config.format is None else FORMATS[config.format]
        if form is None:
            return
        self._format = form
        columns = self._mapped(names) if config.columns else form.find_columns(names)
        for part, column in self._also.items():
            self._require_column(names, part, column)
        self._columns = columns | dict(self._also)
        self._require(form, names)
        needed = self._use.needs | self._use.takes
        consumed = {part for derived, of in form.derives if derived in needed for part in of}
        used = {
            part: column
            for part, column in self._columns.items()
            if part in PROMPT_PARTS or part in needed or part in consumed or part == "media"
        }
        self.report.format = form.name
        self.report.columns_used = {
            column: part if part in PARTS or part in needed else "response"
            for part, column in used.items()
        }
        self._used = frozenset(self._columns[part] for part in used)
        if "label" in used:
            held = (record.get(used["label"]) for record in first)
            self._why_no_labels = why_no_truths([label for label in held if not is_missing(label)])

    def _mapped(self, names: Sequence[str]) -> dict[str, str]:
        """Return the columns that the setting ``columns`` names, and those of a part's own name."""
        for part, column in self._config.columns.items():
            self._require_column(names, f"columns.{part}", column)
        taken = set(self._config.columns.values())
        others = MAPPED.find_columns([name for name in names if name not in taken])
        return others | dict(self._config.columns)

    def _require_column(self, names: Sequence[str], setting: str, column: str) -> None:
        if column not in names and column.split(".")[0] not in names:
            raise DataError(
                f"{self._source.place} has no column {column!r}, which {setting} names; it has "
                f"{', '.join(names)}.{nearest(column, names)}"
            )

    def _require(self, form: Format, names: Sequence[str]) -> None:
        """Refuse a source that lacks what the use needs, where a setting says what it holds."""
        present = frozenset(self._columns)
        derived = {part for part, of in form.derives if present.issuperset(of)}
        lacking = self._use.needs - present - derived
        if lacking:
            raise DataError(
                f"{self._source.place}, read as {form.name}, has no {', '.join(sorted(lacking))}, "
                f"which {self._use.name} need. Its columns are {', '.join(names)}. "
                f"{columns_to_give(names, self._use)}."
            )

    def _examples_of(self, row: RawRow) -> Iterator[ReadRow]:
        self.report.repaired += row.is_repaired
        if row.record is None:
            self.leave_out(row, row.problem or "cannot be read")
            return
        try:
            examples = self._read(row.record)
        except NoPromptError:
            names = ", ".join(map(str, row.record))
            self.leave_out(row, f"has the columns {names}, but no prompt")
            return
        except _UNFIT as problem:
            reason = str(problem) if isinstance(problem, ValueError) else _unforeseen(problem)
            self.leave_out(row, reason)
            return
        self._count_unused(row.record, examples)
        self.report.kept += 1
        for nth, example in enumerate(examples):
            yield ReadRow(row.number, row.place, example, row.record, nth, self._columns)

    def _read(self, record: Record) -> list[Example]:
        """Return the examples of a row; raise `ValueError` with the reason where there is none."""
        form = self._format
        if form is None:
            if self.report.rows > FIRST_ROWS:
                raise ValueError(f"is below {FIRST_ROWS} rows of no format for {self._use.name}")
            raise ValueError(why_unknown(record, self._use))
        if not form.columns:  # a user's own function reads the row itself
            parts: dict[str, Any] = {"record": record}
        else:
            if self._config.columns:
                record = {**record, **self._nested(record)}
            self._check_marks(record, form)
            self._check_meaning(record, form)
            parts = parts_in(record, self._columns, {*form.marks, *self._use.needs})
            texts = parts.get("response")
            count = sum(isinstance(t, str) for t in texts) if isinstance(texts, list) else 1
            if count > 1 and "label" in self._use.needs:
                raise ValueError(f"has {count} texts as its response; one is judged")
        read = form.read(parts)
        if isinstance(read, Mapping):
            return [self._checked(example_from(read))]
        examples = [self._checked(example_from(row)) for row in read if self._is_for_use(row)]
        if not examples:
            needs = ", ".join(sorted(self._use.needs))
            raise ValueError(f"has nothing for {self._use.name}, which need {needs}")
        return examples

    def _nested(self, record: Record) -> dict[str, Any]:
        """Return what columns such as ``info.post`` hold."""
        nested = {}
        for column in self._config.columns.values():
            if "." in column and column not in record:
                held: Any = record
                for name in column.split("."):
                    held = held.get(name) if isinstance(held, Mapping) else None
                nested[column] = held
        return nested

    def _check_marks(self, record: Record, form: Format) -> None:
        """Refuse a row that is of another format than its file."""
        for mark in form.marks:
            column = self._columns.get(mark)
            if column is not None and not is_missing(record.get(column)):
                continue
            if column is not None and column in record:
                raise ValueError(f"has null under {column!r}")
            other = format_of(record, self._use)
            if other is not None and other is not form:
                raise ValueError(
                    f"is of the format {other.name}, and its file was recognized as {form.name} "
                    "by its first rows"
                )
            names = ", ".join(map(str, record)) or "no columns"
            raise ValueError(f"has the columns {names}, but no {column or mark}")

    def _check_meaning(self, record: Record, form: Format) -> None:
        """Refuse a row with something in a column that changes its meaning and is not read."""
        for name in record.keys() & _MEANINGFUL_NAMES:
            if name in self._used or name in self._config.ignored_columns:
                continue
            if has_something(record[name]):
                raise ValueError(
                    f"holds something under {name!r}, which {self._use.name} of the format "
                    f"{form.name} do not use"
                )

    def _is_for_use(self, parts: Mapping[str, Any]) -> bool:
        """Return whether one of several examples of a row has what this use needs."""
        own = set(parts) | ({"response"} if "messages" in parts else set())
        return own >= self._use.needs - {"prompt"}

    def _checked(self, example: Example) -> Example:
        """Return an example that has what its use needs, and nothing that the use would lose."""
        use = self._use
        if self._why_no_labels is not None:
            example = replace(example, label=None)
        for part in use.needs:
            if part == "label" and example.label is None:
                raise ValueError(
                    self._why_no_labels or "has a label that is neither true nor false"
                )
            if part in ("response", "chosen", "rejected", "a", "b") and not getattr(example, part):
                raise ValueError(self._without(example, part))
        if example.tools and "tools" not in use.takes:
            raise ValueError(f"has tools, which {use.name} do not use")
        for part in use.needs & {"chosen", "rejected", "a", "b", "response"}:
            for message in getattr(example, part) or ():
                if message.get("tool_calls") and "tools" not in use.takes:
                    raise ValueError(f"'{part}' calls tools, which {use.name} do not use")
                if message.get("reasoning_content") and "reasoning" not in use.takes:
                    raise ValueError(
                        f"'{part}' has reasoning apart from its text, which {use.name} do not use: "
                        "leave it out, or write it into the text"
                    )
        return example

    def _without(self, example: Example, part: str) -> str:
        """Say what a row lacks."""
        if part == "response" and example.prompt:
            role = example.prompt[-1]["role"]
            return f"ends with the {role}'s turn, so there is no response to learn"
        if part in ("chosen", "rejected") and example.a and example.b:
            return "is a tie or has no verdict, so that neither response is preferred"
        return f"has no {part}"

    def _count_unused(self, record: Record, examples: Sequence[Example]) -> None:
        unused = self.report.columns_unused
        label = self._columns.get("label")
        for name, held in record.items():
            is_used = name in self._used
            if name == label and all(example.label is None for example in examples):
                is_used = False  # it says neither good nor bad
            if not is_used and has_something(held):
                unused[str(name)] += 1
        column = self._columns.get("messages")
        if column is not None:
            for key in unread_keys(record.get(column)):
                unused[f"{column}[].{key}"] += 1


def _unforeseen(problem: Exception) -> str:
    """Return what a row did to a format's reader that expected another shape."""
    return f"has a shape that its format does not have ({type(problem).__name__}: {problem})"


def check_first_rows(use: str, place: str | Path, folder: Path, config: DataFormatConfig) -> None:
    """Raise `DataError` where none of the first rows of a file can be read for a use."""
    reader = ExampleReader(source_at(place, folder), USES[use], config, max_rows=FIRST_ROWS)
    if not any(True for _ in reader):
        report = reader.report
        raise DataError(
            f"{place} holds no {use} in its first {report.rows} rows: "
            f"{report.dropped.summary() or 'it is empty'}. Try: "
            f"plumbline data check FILE --as {use}"
        )
