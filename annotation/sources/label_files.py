"""Labels from a file that somebody else's tool wrote: CSV, JSON, JSON lines or Parquet.

Three columns are needed (`LabelFileConfig` names them): the pair, who answered, and the answer.
These are read where they are there, by their own names: ``created_at`` (ISO 8601), ``shown_first``,
``rationale``, ``strength``, ``flags`` (a list, or text separated by semicolons) and ``purpose``.
A time without a zone is taken for UTC. Every label gets the source ``file``.

Where the file does not say which response was shown first, ``a`` is written, and how many labels
that concerns is among the figures: what is found of preferences for a place then means nothing.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotation.sources.config import LabelFileConfig
from plumbline.data.files import read_records
from plumbline.data.labels import PURPOSES, Label, write_labels
from plumbline.errors import DataError
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
"""When a label was given whose file does not say: long ago, so that any dated label is later."""
_SHOWN = 10


@stage("labels")
def import_labels(
    stage: Stage, *, config: LabelFileConfig, file: SourceFile
) -> Mapping[str, float | None]:
    """Make labels of a file's rows. Raises `DataError` with all rows that are wrong."""
    labels = read_label_file(file.path, config)
    write_labels(stage.folder, labels)
    placed = sum(_value(record, "shown_first") is not None for _, record in _records(file.path))
    undated = sum(label.created_at == UNKNOWN_TIME for label in labels)
    if undated:
        stage.say(f"{undated} labels have no time, and are taken for older than any that has one")
    return {
        "labels": float(len(labels)),
        "pairs": float(len({label.pair_id for label in labels})),
        "annotators": float(len({label.annotator for label in labels})),
        "undated": float(undated),
        "order_unknown": float(len(labels) - placed),
    }


def read_label_file(path: Path, config: LabelFileConfig) -> list[Label]:
    """Read labels from a file; every problem is reported at once, with file and row.

    Rows count from 1, in CSV without the line of names; in JSON lines a row is its line.
    """
    labels: list[Label] = []
    problems: list[str] = []
    for number, record in _records(path):
        missing = _missing(record, config)
        if missing is not None and not labels:  # the file's columns are others than stated
            raise DataError(f"{path}, row {number}: {missing}")
        try:
            labels.append(label_of(record, config))
        except ValueError as problem:
            problems.append(f"{path}, row {number}: {problem}")
    if problems:
        more = len(problems) - _SHOWN
        shown = [*problems[:_SHOWN], *([f"… and {more} more rows"] if more > 0 else [])]
        raise DataError("\n".join(shown))
    if not labels:
        raise DataError(f"{path} has no row, so there is no label to import.")
    return labels


def label_of(record: Mapping[str, Any], config: LabelFileConfig) -> Label:
    """Return the label that a record states. Raises `ValueError` with what is wrong with it."""
    missing = _missing(record, config)
    if missing is not None:
        raise ValueError(missing)
    if None in record:  # where csv.DictReader puts what is too much
        raise ValueError("the row has more cells than there are columns")
    return Label(
        pair_id=_text(record, config.pair_id),
        annotator=_text(record, config.annotator),
        source="file",
        choice=_one_of(record, config.choice, config.choices),
        created_at=_time(record),
        shown_first=_one_of(record, "shown_first", {"a": "a", "b": "b"}, "a"),
        rationale=str(_value(record, "rationale") or ""),
        strength=_strength(record),
        flags=_flags(record),
        purpose=_one_of(record, "purpose", {p: p for p in PURPOSES}, config.purpose),
    )


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix.lower() != ".csv":
        yield from read_records(path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from enumerate(csv.DictReader(stream, strict=True), 1)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from None


def _missing(record: Mapping[str, Any], config: LabelFileConfig) -> str | None:
    for setting in ("pair_id", "annotator", "choice"):
        column: str = getattr(config, setting)
        if column not in record:
            names = [str(name) for name in record]
            close = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            return (
                f"there is no column {column!r}, which the setting {setting!r} names; there are "
                f"{', '.join(names)}.{hint}"
            )
    return None


def _value(record: Mapping[str, Any], column: str) -> Any:
    """Return a value, or None where it is absent, null or empty."""
    value = record.get(column)
    return None if value is None or value == "" else value


def _text(record: Mapping[str, Any], column: str) -> str:
    value = _value(record, column)
    if value is None or not str(value).strip():
        raise ValueError(f"{column!r} is empty")
    return str(value).strip()


def _one_of(
    record: Mapping[str, Any], column: str, meanings: Mapping[str, Any], default: Any = None
) -> Any:
    value = _value(record, column)
    if value is None and default is not None:
        return default
    if value is None:
        raise ValueError(f"{column!r} is empty")
    key = str(value).strip()
    if key not in meanings:
        close = difflib.get_close_matches(key, list(meanings), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        what = " Set what it means under 'choices'." if default is None and not close else ""
        raise ValueError(
            f"{column!r} is {key!r}, which is none of {', '.join(meanings)}.{hint}{what}"
        )
    return meanings[key]


def _time(record: Mapping[str, Any]) -> str:
    value = _value(record, "created_at")
    if value is None:
        return UNKNOWN_TIME
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"'created_at' is {value!r}, which is not ISO 8601") from None
    zoned = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).isoformat()


def _strength(record: Mapping[str, Any]) -> int | None:
    value = _value(record, "strength")
    if value is None:
        return None
    if str(value).strip() not in ("1", "2", "3"):
        raise ValueError(f"'strength' is {value!r}, which is none of 1, 2, 3")
    return int(value)


def _flags(record: Mapping[str, Any]) -> tuple[str, ...]:
    value = _value(record, "flags")
    given = value if isinstance(value, list | tuple) else str(value or "").split(";")
    return tuple(str(flag).strip() for flag in given if str(flag).strip())
