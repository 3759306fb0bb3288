"""Rows that were left out: counted by reason, and kept with their origin."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

DROPPED = "dropped.jsonl"
#: How many row numbers are named for a reason.
_MOST_NAMED = 8
#: How many of them are kept for each reason and origin, and how many origins are named.
_MOST_NUMBERS, _MOST_ORIGINS = 20, 4
#: How many different reasons are counted by themselves in a file, since each is kept in memory.
_MOST_REASONS = 10_000
_OTHERS = f"other reasons (see {DROPPED})"


class LeftOut(Protocol):
    """Rows that were left out, in memory or in a file."""

    @property
    def advice(self) -> list[str]:
        """What would let some of them in, as sentences for people."""
        ...

    def add(
        self, origin: str, number: int, reason: str, row: object, detail: object = None
    ) -> None:
        """Leave a row out. ``number`` counts from 1, as an editor does.

        ``detail``: what people want to see beside the reason.
        """
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def entries(self) -> Iterable[dict[str, Any]]:
        """Return them as they stand in ``dropped.jsonl``."""
        ...

    def reasons(self) -> dict[str, int]:
        """Return the number of rows by reason, most frequent first."""
        ...

    def summary(self) -> str:
        """Return reasons with their counts and first row numbers, as one sentence part."""
        ...

    def by_reason(self) -> list[tuple[str, int, str]]:
        """Return reason, count and the first row numbers of each."""
        ...

    def write(self, folder: Path) -> None:
        """Have them in ``dropped.jsonl`` of a folder."""
        ...


class Places:
    """Where rows were left out for one reason: how many of each origin, and the first of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._counts.total()

    def add(self, origin: str, number: int) -> None:
        """Add a row."""
        self._counts[origin] += 1
        first = self._first.setdefault(origin, [])
        if len(first) < _MOST_NUMBERS:
            first.append(number)

    def include(self, others: Places) -> None:
        """Add the rows that were left out for another reason."""
        self._counts.update(others._counts)
        for origin, numbers in others._first.items():
            self._first.setdefault(origin, []).extend(numbers)

    def listed(self, at_most: int) -> str:
        """Return the first row numbers; of rows of several origins, with these."""
        parts = [
            ", ".join(map(str, numbers[:at_most])) + (", …" if count > at_most else "")
            for numbers, count in zip(self._first.values(), self._counts.values(), strict=True)
        ]
        if len(parts) == 1:
            return parts[0]
        named = [f"{origin}: {part}" for origin, part in zip(self._first, parts, strict=True)]
        return "; ".join(named[:_MOST_ORIGINS]) + ("; …" if len(named) > _MOST_ORIGINS else "")


@dataclass
class Dropped:
    """Rows that were left out, each with its origin and the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    """What would let some of them in, as sentences for people."""

    def add(
        self, origin: str, number: int, reason: str, row: object, detail: object = None
    ) -> None:
        """Leave a row out, as `LeftOut.add` says."""
        self.rows.append(_entry(origin, number, reason, row, detail))

    def reasons(self) -> dict[str, int]:
        """Return the number of rows by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rows).most_common())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)

    def by_reason(
        self, at_most: int = _MOST_NAMED, reasons: int = 20
    ) -> list[tuple[str, int, str]]:
        """Return reason, count and the first row numbers of each, for people to read.

        After so many ``reasons``, the most frequent ones, the others are one entry together.
        """
        places: dict[str, Places] = {}
        for row in self.rows:
            places.setdefault(row["reason"], Places()).add(row.get("origin", ""), row["row"])
        return _table(places, at_most, reasons)

    def summary(self) -> str:
        """Return reasons with their counts and first row numbers, as one sentence part."""
        return _summary(self)

    def entries(self) -> list[dict[str, Any]]:
        """Return them."""
        return self.rows

    def write(self, folder: Path) -> None:
        """Write the rows to ``dropped.jsonl``; an empty file says that nothing was dropped."""
        with _opened(folder) as stream:
            stream.writelines(map(_line, self.rows))

    @classmethod
    def read(cls, folder: Path) -> Dropped:
        """Read what a dataset left out."""
        path = folder / DROPPED
        if not path.exists():
            return cls()
        # A text may hold other line ends (U+2028, say), which JSON leaves as they are.
        with path.open(encoding="utf-8", newline="\n") as lines:
            return cls([json.loads(line) for line in lines])


class Tally:
    """How many rows were left out for which reason, without the rows."""

    def __init__(self) -> None:
        self._places: dict[str, Places] = {}
        self._rows = 0  # a reader asks for it at each row that it leaves out

    def count(self, reason: str, origin: str, number: int) -> None:
        """Count a row."""
        if reason not in self._places and len(self._places) >= _MOST_REASONS:
            reason = _OTHERS
        self._places.setdefault(reason, Places()).add(origin, number)
        self._rows += 1

    def __len__(self) -> int:
        """Return how many there are."""
        return self._rows

    def reasons(self) -> dict[str, int]:
        """Return the number of rows by reason, most frequent first."""
        counts = {reason: len(places) for reason, places in self._places.items()}
        return dict(Counter(counts).most_common())

    def by_reason(self, at_most: int = _MOST_NAMED) -> list[tuple[str, int, str]]:
        """Return reason, count and the first row numbers of each, for people to read."""
        return _table(self._places, at_most, 20)


def count_dropped(folder: Path) -> Tally:
    """Count what a dataset left out, by its ``dropped.jsonl``."""
    tally = Tally()
    if (folder / DROPPED).exists():
        with (folder / DROPPED).open(encoding="utf-8", newline="\n") as lines:
            for row in map(json.loads, lines):
                tally.count(row["reason"], row.get("origin", ""), row["row"])
    return tally


class DroppedFile(Tally):
    """Rows that were left out, written as they come, so that their number does not matter.

    ``folder``: where ``dropped.jsonl`` is to be. None: a file that is gone when this object is.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.advice: list[str] = []
        self._stream = None if folder is None else _opened(folder)

    def add(
        self, origin: str, number: int, reason: str, row: object, detail: object = None
    ) -> None:
        """Leave a row out, as `LeftOut.add` says."""
        if self._stream is None:
            self._stream = _temporary()
        self._stream.write(_line(_entry(origin, number, reason, row, detail)))
        self.count(reason, origin, number)

    def summary(self) -> str:
        """Return reasons with their counts and first row numbers, as one sentence part."""
        return _summary(self)

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield them from the file, of one that is gone with this object."""
        if self._stream is not None:
            self._stream.seek(0)
            yield from map(json.loads, self._stream)

    def write(self, folder: Path) -> None:
        """Have all of them in the file, which is in this folder already."""
        if self._stream is not None:
            self._stream.close()


def _summary(dropped: LeftOut) -> str:
    reasons = [f"{count} × {reason} (rows {rows})" for reason, count, rows in dropped.by_reason()]
    return "; ".join([*reasons, *dropped.advice])


def _temporary() -> IO[str]:
    return tempfile.TemporaryFile(
        "w+", encoding="utf-8", errors="backslashreplace", newline="\n", prefix="plumbline-dropped-"
    )


def _opened(folder: Path) -> IO[str]:
    """Open ``dropped.jsonl``: half a character cannot be UTF-8; its escape is JSON, too."""
    return (folder / DROPPED).open("w", encoding="utf-8", errors="backslashreplace")


def _entry(origin: str, number: int, reason: str, row: object, detail: object) -> dict[str, Any]:
    more = {} if detail is None else {"detail": detail}
    return {"origin": origin, "row": number, "reason": reason, **more, "record": row}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def _table(places: Mapping[str, Places], at_most: int, reasons: int) -> list[tuple[str, int, str]]:
    """Return a table for people: the most frequent reasons, and the others as one entry."""
    ordered = sorted(places.items(), key=lambda entry: -len(entry[1]))
    table = [(reason, len(of_it), of_it.listed(at_most)) for reason, of_it in ordered[:reasons]]
    others = Places()
    for _, of_it in ordered[reasons:]:
        others.include(of_it)
    if len(others):
        name = f"{len(ordered) - reasons} other reasons (see {DROPPED})"
        table.append((name, len(others), others.listed(at_most)))
    return table
