"""Where demonstrations come from: files and datasets in any known format, or rows of our own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from plumbline.data.reader import ExampleReader, ReadReport, ReadRow
from plumbline.data.records import Conversation, Row
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.dropped import Dropped
from plumbline.runs.calls import SourceFile
from sft.config import DemonstrationsConfig
from sft.forms import chain_of_thought, form_of, split_worked_answer

#: Formats whose responses may be worked in GSM8K's way.
_WORKED = ("question_answer", "columns")


@dataclass
class Demonstrations:
    """Rows with ``messages``, ``form``, ``origin`` and ``row``, and what could not be read."""

    rows: list[Row]
    dropped: Dropped = field(default_factory=Dropped)
    report: ReadReport | None = None
    """How a file was read."""
    may_grow: bool = True
    """Whether dialogues may be the beginnings of others, as in many files."""

    def notes(self) -> list[str]:
        """Return what is worth saying of how they were read."""
        return [] if self.report is None else self.report.notes()


def from_rows(rows: list[Row], origin: str) -> Demonstrations:
    """Take rows that are conversations already, such as the embedded world's."""
    return Demonstrations(
        [row | {"origin": origin, "row": number} for number, row in enumerate(rows, 1)],
        may_grow=False,
    )


def from_file(
    file: Source | SourceFile | Path,
    config: DemonstrationsConfig | None = None,
) -> Demonstrations:
    """Read demonstrations in any of the formats of docs/formats.md."""
    config = config or DemonstrationsConfig()
    reader = ExampleReader(file, USES["demonstrations"], config, max_rows=config.max_rows)
    rows: list[Row] = []
    for entry in reader:
        problem = _problem(entry)
        if problem is not None:
            reader.leave_out(entry, problem)
            continue
        messages = _messages(entry, reader.report.format)
        row: Row = {"messages": messages, "form": form_of(messages)}
        if entry.example.tools:
            row["tools"] = json.dumps(list(entry.example.tools), ensure_ascii=False)
        rows.append(row | {"origin": reader.report.origin, "row": entry.number})
    return Demonstrations(rows, reader.report.dropped, reader.report)


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
