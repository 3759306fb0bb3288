"""Labels from a file that somebody else's tool wrote, of any kind that is read.

Three columns are needed: the pair, who answered, and the answer. Others are read where they are
there: ``created_at`` (ISO 8601), ``shown_first``, ``rationale``, ``strength``, ``flags`` (a list,
or text separated by semicolons) and ``purpose``. The setting ``columns`` names any of them. A time
without a zone is taken for UTC. Every label gets the source ``file``.

Where the file does not say which response was shown first, ``a`` is written, and how many labels
that concerns is among the figures: what is found of preferences for a place then means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from annotation.sources.config import LabelFileConfig
from plumbline.data.files import read_rows
from plumbline.data.labels import PURPOSES, Label, write_labels
from plumbline.data.messages import is_missing, kind_of
from plumbline.data.parts import nearest
from plumbline.errors import DataError
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage

UNKNOWN_TIME = "1970-01-01T00:00:00+00:00"
"""When a label was given whose file does not say: long ago, so that any dated label is later."""
_SHOWN = 10
#: What each part is called where the setting ``columns`` does not say.
_OWN_NAMES = {
    "item": "pair_id",
    "person": "annotator",
    "vote": "choice",
    "created_at": "created_at",
    "shown_first": "shown_first",
    "rationale": "rationale",
    "strength": "strength",
    "flags": "flags",
    "purpose": "purpose",
}


class LabelFile(NamedTuple):
    """The labels in a file."""

    labels: list[Label]
    order_unknown: int
    """Labels of which the file does not say which response was shown first."""


@stage("labels")
def import_labels(
    stage: Stage, *, config: LabelFileConfig, file: SourceFile
) -> Mapping[str, float | None]:
    """Make labels of a file's rows. Raises `DataError` with all rows that are wrong."""
    labels, order_unknown = read_label_file(file.path, config)
    write_labels(stage.folder, labels)
    undated = sum(label.created_at == UNKNOWN_TIME for label in labels)
    if undated:
        stage.say(f"{undated} labels have no time, and are taken for older than any that has one")
    return {
        "labels": float(len(labels)),
        "pairs": float(len({label.pair_id for label in labels})),
        "annotators": float(len({label.annotator for label in labels})),
        "undated": float(undated),
        "order_unknown": float(order_unknown),
    }


def read_label_file(path: Path, config: LabelFileConfig) -> LabelFile:
    """Read labels from a file; every problem is reported at once, with file and row."""
    labels: list[Label] = []
    problems: list[str] = []
    order_unknown = 0
    for row in read_rows(path):
        problem = row.problem
        if row.record is not None:
            missing = _missing_column(row.record, config)
            if missing is not None and not labels:  # the file's columns are others than stated
                raise DataError(f"{path}, {row.place}: {missing}")
            try:
                labels.append(label_of(row.record, config))
            except ValueError as error:
                problem = str(error)
            else:
                order_unknown += _value(row.record, _column("shown_first", config)) is None
        if problem is not None:
            problems.append(f"{path}, {row.place}: {problem}")
    if problems:
        more = len(problems) - _SHOWN
        shown = [*problems[:_SHOWN], *([f"… and {more} more rows"] if more > 0 else [])]
        raise DataError("\n".join(shown))
    if not labels:
        raise DataError(f"{path} has no row, so there is no label to import.")
    return LabelFile(labels, order_unknown)


def label_of(record: Mapping[str, Any], config: LabelFileConfig) -> Label:
    """Return the label that a record states. Raises `ValueError` with what is wrong with it."""
    missing = _missing_column(record, config)
    if missing is not None:
        raise ValueError(missing)
    column = {part: _column(part, config) for part in _OWN_NAMES}
    return Label(
        pair_id=_text(record, column["item"]),
        annotator=_text(record, column["person"]),
        source="file",
        choice=_one_of(record, column["vote"], config.choices),
        created_at=_time(record, column["created_at"]),
        shown_first=_one_of(record, column["shown_first"], {"a": "a", "b": "b"}, "a"),
        rationale=str(_value(record, column["rationale"]) or ""),
        strength=_strength(record, column["strength"]),
        flags=_flags(record, column["flags"]),
        purpose=_one_of(record, column["purpose"], {p: p for p in PURPOSES}, config.purpose),
    )


def _column(part: str, config: LabelFileConfig) -> str:
    return config.columns.get(part, _OWN_NAMES[part])


def _missing_column(record: Mapping[str, Any], config: LabelFileConfig) -> str | None:
    for part in ("item", "person", "vote"):
        column = _column(part, config)
        if column not in record:
            names = ", ".join(map(str, record))
            return (
                f"there is no column {column!r} with the {part}; there are {names}."
                f"{nearest(column, map(str, record))} The setting columns.{part} names it"
            )
    return None


def _value(record: Mapping[str, Any], column: str) -> Any:
    """Return a value, or None where it is absent, null, NaN or empty."""
    value = record.get(column)
    return None if is_missing(value) or value == "" else value


def _text(record: Mapping[str, Any], column: str) -> str:
    value = _value(record, column)
    if value is None or not str(value).strip():
        raise ValueError(f"{column!r} is empty")
    if isinstance(value, Mapping | list):
        raise ValueError(f"{column!r} holds {kind_of(value)}, not text")
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
        hint = nearest(key, meanings)
        what = " Set what it means under 'choices'." if default is None and not hint else ""
        raise ValueError(
            f"{column!r} is {key!r}, which is none of {', '.join(meanings)}.{hint}{what}"
        )
    return meanings[key]


def _time(record: Mapping[str, Any], column: str) -> str:
    value = _value(record, column)
    if value is None:
        return UNKNOWN_TIME
    try:
        time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"{column!r} is {value!r}, which is not ISO 8601") from None
    zoned = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return zoned.astimezone(UTC).isoformat()


def _strength(record: Mapping[str, Any], column: str) -> int | None:
    value = _value(record, column)
    if value is None:
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if text.strip() not in ("1", "2", "3"):
        raise ValueError(f"{column!r} is {value!r}, which is none of 1, 2, 3")
    return int(text)


def _flags(record: Mapping[str, Any], column: str) -> tuple[str, ...]:
    value = _value(record, column)
    flags = value if isinstance(value, list | tuple) else str(value or "").split(";")
    return tuple(str(flag).strip() for flag in flags if str(flag).strip())
