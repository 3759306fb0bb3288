"""A table of the report: declared once, shown as HTML and as Markdown, kept as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from plumbline.pages import number, percent
from plumbline.runs.progress import duration, size

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column: where its value stands in a row, its heading, and how it reads."""

    key: str
    title: str
    kind: str = "text"
    """One of the keys of `READINGS`, or ``interval`` (``key`` with ``_low`` and ``_high``)."""

    def shown(self, row: dict[str, Any]) -> str:
        """Return the cell as text."""
        if self.kind == "interval":
            return interval(row, self.key)
        value = row.get(self.key)
        return DASH if value is None or value == "" else READINGS[self.kind](value)

    @property
    def numeric(self) -> bool:
        """Whether figures stand below each other in this column."""
        return self.kind not in {"text", "code", "wrap", "list", "method"}


@dataclass(frozen=True)
class Table:
    """A named table; its name is that of its CSV file."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    note: str = ""
    raw: Sequence[dict[str, Any]] | None = field(default=None)
    """Rows for the CSV where they are more than what is shown."""

    def __bool__(self) -> bool:
        return bool(self.rows)

    def csv(self) -> str:
        """Return the rows as CSV with every digit; a list or a mapping stands as JSON."""
        rows = self.rows if self.raw is None else self.raw
        keys = dict.fromkeys(key for row in rows for key in row if not key.startswith("_"))
        stream = io.StringIO()
        writer = csv.DictWriter(
            stream, list(keys), restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
        return stream.getvalue()


def interval(row: dict[str, Any], key: str) -> str:
    """Return ``0.12 to 0.30``, in per cent where the key is a rate; a dash where unknown."""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if low is None or high is None:
        return DASH
    read = percent if "rate" in key else number
    return f"{read(low)} to {read(high)}"


def p_value(value: float) -> str:
    """Return a p-value with as many digits as it bears."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+,.2f}"


def _compact(value: Any) -> str:
    """Return a figure of unknown size in about four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


#: How a value reads, by its column's kind.
READINGS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "wrap": str,
    "code": str,
    "method": str,
    "list": lambda value: ", ".join(map(str, value)) or DASH,
    "number": number,
    "signed": _signed,
    "one": lambda value: number(value, 1),
    "integer": lambda value: number(value, 0),
    "percent": percent,
    "p": p_value,
    "duration": duration,
    "size": size,
    "compact": _compact,
}
