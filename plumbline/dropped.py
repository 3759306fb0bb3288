"""Rows that were left out: counted by reason, and kept with their origin."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DROPPED = "dropped.jsonl"


@dataclass
class Dropped:
    """Rows that were left out, each with its origin and the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    """What would let some of them in, as sentences for people."""

    def add(self, origin: str, number: int, reason: str, row: object) -> None:
        """Leave a row out. ``number`` counts from 1, as an editor does."""
        self.rows.append({"origin": origin, "row": number, "reason": reason, "record": row})

    def reasons(self) -> dict[str, int]:
        """Return the number of rows by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rows).most_common())

    def by_reason(self, at_most: int = 8, reasons: int = 20) -> list[tuple[str, int, str]]:
        """Return reason, count and the first row numbers of each, for people to read.

        After so many ``reasons``, the most frequent ones, the others are one entry together.
        """
        places: dict[str, list[int]] = {}
        for row in self.rows:
            places.setdefault(row["reason"], []).append(row["row"])
        ordered = sorted(places.items(), key=lambda entry: -len(entry[1]))
        table = [(reason, len(rows), _listed(rows, at_most)) for reason, rows in ordered[:reasons]]
        others = [row for _, rows in ordered[reasons:] for row in rows]
        if others:
            name = f"{len(ordered) - reasons} other reasons (see {DROPPED})"
            table.append((name, len(others), _listed(others, at_most)))
        return table

    def summary(self) -> str:
        """Return reasons with their counts and first row numbers, as one sentence part."""
        reasons = [
            f"{count} × {reason} (rows {numbers})" for reason, count, numbers in self.by_reason()
        ]
        return "; ".join([*reasons, *self.advice])

    def write(self, folder: Path) -> None:
        """Write the rows to ``dropped.jsonl``; an empty file says that nothing was dropped."""
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in self.rows)
        # Half a character cannot be written as UTF-8; its escape is JSON, too.
        with (folder / DROPPED).open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines(lines)

    @classmethod
    def read(cls, folder: Path) -> Dropped:
        """Read what a dataset left out."""
        path = folder / DROPPED
        if not path.exists():
            return cls()
        # A text may hold other line ends (U+2028, say), which JSON leaves as they are.
        with path.open(encoding="utf-8", newline="\n") as lines:
            return cls([json.loads(line) for line in lines])


def _listed(rows: Sequence[int], at_most: int) -> str:
    return ", ".join(map(str, rows[:at_most])) + (", …" if len(rows) > at_most else "")
