"""What became of the rows of a build: read, changed, left out and kept, by source and step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from plumbline.data.records import CONVERSATIONS, Row
from plumbline.dropped import LeftOut

#: What is kept of a row that is left out: so many characters, and so many rows of a reason whole.
_LARGEST_KEPT = 20_000
_MOST_KEPT = 10_000
_NOT_KEPT = "not kept: many rows were left out for this reason"

#: The step under which rows that cannot be read are counted.
READING = "reading"


class LeftOutRow(NamedTuple):
    """A row that a step leaves out."""

    step: str
    source: int
    origin: str
    number: int
    reason: str
    record: Any
    detail: Any = None


class Events(NamedTuple):
    """What steps did to a batch of rows."""

    entered: Counter[tuple[str, int]]
    """Rows by step and source."""
    created: Counter[tuple[str, int]]
    """New rows, beside those that entered."""
    changed: Counter[tuple[str, int, str]]
    """Rows by step, source and what was changed."""
    left_out: list[LeftOutRow]

    @classmethod
    def none(cls) -> Events:
        """Return that nothing happened."""
        return cls(Counter(), Counter(), Counter(), [])


def record_of(row: Row) -> Any:
    """Return what is kept of a row that is left out."""
    record = {column: row[column] for column in CONVERSATIONS if column in row}
    record = record if len(record) > 1 else next(iter(record.values()), row)
    text = str(record)
    if len(text) > _LARGEST_KEPT:
        return f"{text[:_LARGEST_KEPT]} … ({len(text)} characters)"
    return record


class Ledger:
    """Counts what becomes of rows, and writes those that are left out."""

    def __init__(self, dropped: LeftOut, steps: Sequence[str]) -> None:
        self.dropped = dropped
        self._steps = [READING, *steps]
        self._entered: Counter[tuple[str, int]] = Counter()
        self._created: Counter[tuple[str, int]] = Counter()
        self._changed: Counter[tuple[str, int, str]] = Counter()
        self._left_out: Counter[tuple[str, int, str]] = Counter()
        self._by_reason: Counter[str] = Counter()

    def read(self, source: int, rows: int, dropped: LeftOut) -> None:
        """Note what could be read of a source, once it was read to its end."""
        self._entered[READING, source] += rows
        for entry in dropped.entries():
            self.leave_out(
                LeftOutRow(
                    READING, source, entry["origin"], entry["row"], entry["reason"], entry["record"]
                )
            )

    def enter(self, step: str, rows: Sequence[int]) -> None:
        """Note how many rows of each source a comparison has before it."""
        self._entered += Counter({(step, source): n for source, n in enumerate(rows)})

    def add(self, events: Events) -> None:
        """Note what steps did."""
        self._entered += events.entered
        self._created += events.created
        self._changed += events.changed
        for row in events.left_out:
            self.leave_out(row)

    def leave_out(self, row: LeftOutRow) -> None:
        """Count a row as left out, and write it."""
        self._left_out[row.step, row.source, row.reason] += 1
        self._by_reason[row.reason] += 1
        record = row.record if self._by_reason[row.reason] <= _MOST_KEPT else _NOT_KEPT
        self.dropped.add(row.origin, row.number, row.reason, record, row.detail)

    def by_step(self) -> list[dict[str, Any]]:
        """Return for each step: rows in and out, what was changed, who was left out and why."""
        return [self._step(name) for name in self._steps]

    def by_source(self, kept: Mapping[int, int]) -> list[dict[str, Any]]:
        """Return for each source: rows read and kept, and those left out by reason."""
        sources = sorted({source for step, source in self._entered if step == READING})
        return [
            {
                "rows": self._entered[READING, source],
                "kept": kept.get(source, 0),
                "created": sum(n for (_, s), n in self._created.items() if s == source),
                "left_out": _summed(
                    (reason, n) for (_, s, reason), n in self._left_out.items() if s == source
                ),
                "changed": _summed(
                    (change, n) for (_, s, change), n in self._changed.items() if s == source
                ),
            }
            for source in sources
        ]

    def _step(self, name: str) -> dict[str, Any]:
        entered = sum(n for (step, _), n in self._entered.items() if step == name)
        created = sum(n for (step, _), n in self._created.items() if step == name)
        left_out = _summed(
            (reason, n) for (step, _, reason), n in self._left_out.items() if step == name
        )
        return {
            "step": name,
            "rows_in": entered,
            "rows_out": entered + created - sum(left_out.values()),
            "created": created,
            "left_out": left_out,
            "changed": _summed(
                (change, n) for (step, _, change), n in self._changed.items() if step == name
            ),
        }


def _summed(entries: Any) -> dict[str, int]:
    """Return counts by name, the largest first."""
    counts: Counter[str] = Counter()
    for name, count in entries:
        counts[name] += count
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
