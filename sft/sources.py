"""Where demonstrations come from: files and datasets in any known format, or rows of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from plumbline.data.messages import is_missing
from plumbline.data.reader import DataFormatConfig, ExampleReader, ReadReport, ReadRow
from plumbline.data.records import Conversation, Row, iterate_dataset
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.dropped import Dropped, DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from sft.config import DemonstrationsConfig
from sft.forms import chain_of_thought, form_of, split_worked_answer
from sft.wrong_answers import WRONG_ANSWERS, written

#: Formats whose responses may be worked in GSM8K's way.
_WORKED = ("question_answer", "columns")
#: Columns of a build's own.
RESERVED = frozenset(
    ("messages", "form", "tools", WRONG_ANSWERS, "origin", "row", "source", "split", "tier")
)

Split = Literal["train", "test"]


class Demonstrations(Protocol):
    """Rows with ``messages``, ``form``, ``origin`` and ``row``, read one by one."""

    split: Split | None
    """The split that all rows belong to; None: a share of them is held out."""
    tier: str | None
    """How hard or how genuine they are, for the mixture."""
    weight: float
    """How often their rows count in the mixture, beside those of other sources."""
    may_grow: bool
    """Whether dialogues may be the beginnings of others, as in many files."""

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that can be read."""
        ...

    @property
    def origin(self) -> str:
        """What rows say that they come from."""
        ...

    @property
    def rows_read(self) -> int:
        """How many rows were read, whether they could be or not."""
        ...

    @property
    def dropped(self) -> LeftOut:
        """Rows that could not be read; complete once all rows were read."""
        ...

    def notes(self) -> list[str]:
        """Return what is worth saying of how they were read."""
        ...


class InMemory:
    """Rows that are conversations already."""

    split: Split | None = None
    tier: str | None = None
    weight = 1.0
    may_grow = False

    def __init__(self, rows: Sequence[Row], origin: str) -> None:
        self.origin, self.rows = origin, rows
        self.dropped: LeftOut = Dropped()

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows."""
        for number, row in enumerate(self.rows, 1):
            yield row | {"origin": self.origin, "row": number}

    @property
    def rows_read(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def notes(self) -> list[str]:
        """Return nothing."""
        return []


class DatasetDemonstrations:
    """Rows of a split of an artefact of demonstrations."""

    split: Split | None = None
    tier: str | None = None
    weight = 1.0
    may_grow = False

    def __init__(self, dataset: Artifact, split: str) -> None:
        self.origin, self._folder, self._split = dataset.id, dataset.path, split
        self.dropped: LeftOut = Dropped()
        self._read = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows."""
        rows = iterate_dataset(self._folder, self._split)
        for number, row in enumerate(rows, 1):
            self._read = number
            yield row | {"origin": self.origin, "row": number}

    @property
    def rows_read(self) -> int:
        """How many rows were read."""
        return self._read

    def notes(self) -> list[str]:
        """Return nothing."""
        return []


class FileDemonstrations:
    """Rows of a file or dataset, in any of the formats of docs/formats.md."""

    may_grow = True

    def __init__(
        self,
        file: Source | SourceFile | Path,
        config: DataFormatConfig | None = None,
        *,
        max_rows: int | None = None,
        keep: Sequence[str] = (),
        split: Split | None = None,
        tier: str | None = None,
        weight: float = 1.0,
    ) -> None:
        self.split, self.tier, self.weight = split, tier, weight
        self._keep = tuple(keep)
        self._reader = ExampleReader(
            file, USES["demonstrations"], config, max_rows=max_rows, dropped=DroppedFile()
        )

    @property
    def origin(self) -> str:
        """What rows say that they come from."""
        return self._reader.report.origin

    @property
    def rows_read(self) -> int:
        """How many rows were read."""
        return self._reader.report.rows

    @property
    def report(self) -> ReadReport:
        """How the file was read."""
        return self._reader.report

    @property
    def dropped(self) -> LeftOut:
        """Rows that could not be read."""
        return self._reader.report.dropped

    def notes(self) -> list[str]:
        """Return how it was read, and which columns are not used."""
        for name in self._keep:
            del self._reader.report.columns_unused[name]
        return self._reader.report.notes()

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that can be read."""
        reader = self._reader
        for entry in reader:
            problem = _problem(entry)
            if problem is not None:
                reader.leave_out(entry, problem)
                continue
            messages = _messages(entry, reader.report.format)
            row: Row = {"messages": messages, "form": form_of(messages)}
            if entry.example.tools:
                row["tools"] = json.dumps(list(entry.example.tools), ensure_ascii=False)
            if entry.example.wrong_answers:
                row[WRONG_ANSWERS] = written(entry.example.wrong_answers)
            yield row | self._kept(entry) | {"origin": self.origin, "row": entry.number}

    def _kept(self, entry: ReadRow) -> Row:
        """Return the columns that are kept beside the dialogue."""
        kept: Row = {}
        for name in self._keep:
            if name not in entry.record:
                raise DataError(
                    f"{self.origin}, {entry.place} has no column {name!r}, which keep names; it "
                    f"has {', '.join(map(str, entry.record))}"
                )
            value = entry.record[name]
            if not is_missing(value):
                plain = isinstance(value, str | int | float)
                kept[name] = value if plain else json.dumps(value, ensure_ascii=False, default=str)
        return kept


def from_rows(rows: Sequence[Row], origin: str) -> InMemory:
    """Take rows that are conversations already, such as the embedded world's."""
    return InMemory(rows, origin)


def from_dataset(dataset: Artifact, split: str) -> DatasetDemonstrations:
    """Take the rows of a split of a run's dataset."""
    return DatasetDemonstrations(dataset, split)


def from_file(
    file: Source | SourceFile | Path, config: DemonstrationsConfig | None = None
) -> FileDemonstrations:
    """Read demonstrations in any of the formats of docs/formats.md."""
    config = config or DemonstrationsConfig()
    return FileDemonstrations(file, config, max_rows=config.max_rows)


def _problem(entry: ReadRow) -> str | None:
    """Return why a row that can be read is nothing to learn from."""
    example = entry.example
    if example.label is False:
        return "has the label false: its response was rejected, so it is not learnt"
    if example.weight not in (None, 0, 1):
        return f"has the weight {example.weight:g}; a row is learnt (1) or not (0)"
    if example.weight == 0:
        return "has the weight 0, so it is not learnt"
    spoken = [m for m in example.messages if m["role"] == "assistant"]
    if spoken and all(message.get("weight") == 0 for message in spoken):
        return "has the weight 0 in each turn of the assistant's, so there is nothing to learn"
    return None


def _messages(entry: ReadRow, format_name: str) -> Conversation:
    """Return the dialogue; an answer that is worked in GSM8K's way ends in ``Answer: …``."""
    messages = entry.example.messages
    if format_name in _WORKED and len(entry.example.response or ()) == 1:
        worked = split_worked_answer(messages[-1]["content"])
        if worked is not None:
            steps, result = worked
            return [*messages[:-1], *chain_of_thought("", steps, result)[1:]]
    return messages
