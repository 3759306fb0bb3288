"""Rows that were left out: counted by reason, and kept with their origin."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DROPPED = "dropped.jsonl"


@dataclass
class Dropped:
    """Rows that were left out, each with its origin and the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, origin: str, number: int, reason: str, row: object) -> None:
        """Leave a row out. ``number`` counts from 1, as an editor does."""
        self.rows.append({"origin": origin, "row": number, "reason": reason, "record": row})

    def reasons(self) -> dict[str, int]:
        """Return the number of rows by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rows).most_common())

    def by_reason(self, at_most: int = 8) -> list[tuple[str, int, str]]:
        """Return reason, count and the first row numbers of each, for people to read."""
        table = []
        for reason, count in self.reasons().items():
            rows = [row for row in self.rows if row["reason"] == reason]
            numbers = ", ".join(str(row["row"]) for row in rows[:at_most])
            table.append((reason, count, numbers + (", …" if count > at_most else "")))
        return table

    def write(self, folder: Path) -> None:
        """Write the rows to ``dropped.jsonl``; an empty file says that nothing was dropped."""
        lines = (json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in self.rows)
        (folder / DROPPED).write_text("".join(lines), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Dropped:
        """Read what a dataset left out."""
        path = folder / DROPPED
        if not path.exists():
            return cls()
        # A text may hold other line ends (U+2028, say), which JSON leaves as they are.
        with path.open(encoding="utf-8", newline="\n") as lines:
            return cls([json.loads(line) for line in lines])
