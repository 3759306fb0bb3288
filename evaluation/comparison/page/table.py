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
#: A spreadsheet reads a cell that starts like this as a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column: the key of its value in a row, its heading, and its format."""

    key: str
    title: str
    kind: str = "text"
    """One of the keys of `FORMATS`, or ``interval`` (``key`` with ``_low`` and ``_high``)."""

    def shown(self, row: dict[str, Any]) -> str:
        """Return the cell as text."""
        if self.kind == "interval":
            return interval(row, self.key)
        value = row.get(self.key)
        return DASH if value is None or value == "" else FORMATS[self.kind](value)

    @property
    def numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.kind not in {"text", "code", "wrap", "list", "method"}


@dataclass(frozen=True)
class ReportTable:
    """A named table; its name is that of its CSV file."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Any]]
    note: str = ""
    raw: Sequence[dict[str, Any]] | None = field(default=None)
    """Rows for the CSV where it has more than the page shows."""

    def __bool__(self) -> bool:
        """Whether it has anything to show: rows, and more of each than its name."""
        return bool(self.rows) and len(self.columns) != 1  # without any it is for the CSV

    def csv(self) -> str:
        """Return the rows as CSV with every digit; a list or a mapping becomes JSON."""
        rows = self.rows if self.raw is None else self.raw
        keys = dict.fromkeys(key for row in rows for key in row if not key.startswith("_"))
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([csv_cell(key) for key in keys])
        writer.writerows([csv_cell(row.get(key, "")) for key in keys] for row in rows)
        return stream.getvalue()


def interval(row: dict[str, Any], key: str) -> str:
    """Return ``0.12 to 0.30``, in per cent where the key is a rate; a dash where unknown."""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    if low is None or high is None:
        return DASH
    shown = percent if "rate" in key else number
    return f"{shown(low)} to {shown(high)}"


def p_value(value: float) -> str:
    """Return a p-value with three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def csv_cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file; text that reads as a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _signed(value: float) -> str:
    return f"{value:+,.2f}"


def _compact(value: Any) -> str:
    """Return a number of unknown size in about four digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _energy(kwh: float) -> str:
    """Return an energy in kilowatt hours, or in watt hours where it is small."""
    return f"{kwh:,.3g} kWh" if kwh >= 0.1 else f"{1000 * kwh:.3g} Wh"


#: The format of a value, by the kind of its column.
FORMATS: dict[str, Callable[[Any], str]] = {
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
    "energy": _energy,
}
