"""The formats of data that are read, and which of them a file is of.

Adding a format is adding one `Format` to one of the lists below (or handing a function of
your own to the setting ``format``); everything that reads data then reads it, and the
documentation's table has it. See docs/extending/data-format.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plumbline.data.column_guess import columns_to_give
from plumbline.data.comparison_formats import COMPARISONS, as_pair
from plumbline.data.dialogue_formats import DIALOGUES
from plumbline.data.format import Derived, Format, Record, derived
from plumbline.data.label_formats import LABELS
from plumbline.data.part_values import Parts, has_something
from plumbline.data.parts import PARTS, nearest
from plumbline.data.question_formats import QUESTIONS, answered, chosen_option
from plumbline.data.step_formats import STEPS
from plumbline.data.uses import Use
from plumbline.data.verdicts import verdict_of, with_verdict
from plumbline.tables import Table

FIRST_ROWS = 200
"""Rows that decide which format a file is of."""


def _own_names(parts: dict[str, Any]) -> Parts:
    """Read a row whose columns are named by a ``columns`` setting."""
    if has_something(parts.get("options")) and "correct" in parts:
        return chosen_option(parts)
    if "a" in parts and "b" in parts and "verdict" in parts:
        return with_verdict(parts, verdict_of("winner", parts["verdict"]))
    if "chosen" in parts and "rejected" in parts:
        return as_pair(parts)
    return answered(parts)


#: A file whose columns a ``columns`` setting names.
MAPPED = Format(
    "columns",
    "any table whose columns the setting `columns` names",
    {part: (part,) if part != "response" else (part, "completion") for part in PARTS},
    marks=(),
    derives=(
        *derived(("prompt", "response", "references"), of=("messages",)),
        *derived(("prompt", "a", "b"), of=("chosen", "rejected")),
        *derived(("prompt",), of=("a", "b")),
        *derived(("chosen", "rejected"), of=("a", "b", "verdict")),
        *derived(("references",), of=("response",)),
        *derived(("response", "references", "wrong_answers"), of=("options", "correct")),
    ),
    read=_own_names,
    example={"prompt": "Name a colour", "response": "Red"},
)


def _of_function(path: str, function: Callable[..., Any]) -> Format:
    """Make a format of a user's own function: from a record to its parts, or to several."""

    def read(parts: dict[str, Any]) -> Any:
        returned = function(parts["record"])
        rows = returned if isinstance(returned, list) else [returned]
        for row in rows:
            if not isinstance(row, Mapping):
                raise ValueError(f"{path} returned {type(row).__name__}, not parts by name")
            for part in row:
                if part not in PARTS:
                    raise ValueError(
                        f"{path} returned {part!r}, which is not a part of a row."
                        f"{nearest(part, PARTS)}"
                    )
        return returned

    return Format(
        path,
        f"your own function {path}",
        {},
        marks=(),
        derives=tuple(Derived(part, ()) for part in PARTS),
        read=read,
        example={},
    )


FORMATS = Table(
    "data format",
    (*STEPS, *COMPARISONS, *DIALOGUES, *QUESTIONS, *LABELS),
    from_function=_of_function,
)


def recognize(first: Sequence[Record], use: Use) -> Format | None:
    """Return the format that most of a file's first rows are of, among those that suit the use."""
    votes = Counter(form.name for record in first if (form := format_of(record, use)) is not None)
    if votes:
        return FORMATS[votes.most_common(1)[0][0]]
    names = columns_in(first)
    for form in FORMATS.values():  # by its columns alone, where every row is damaged
        marked = all(any(name in names for name in form.columns[mark]) for mark in form.marks)
        if marked and use.needs <= form.gives(names) and any(map(form.holds, first)):
            return form
    return None


def format_of(record: Record, use: Use | None = None) -> Format | None:
    """Return the first format in the table that a single row is of, and that suits the use."""
    return next(
        (
            form
            for form in FORMATS.values()
            if (use is None or use.needs <= form.gives(record)) and form.is_of(record)
        ),
        None,
    )


def columns_in(records: Sequence[Record]) -> list[str]:
    """Return the columns of rows, in the order in which they come."""
    return list(dict.fromkeys(str(name) for record in records for name in record))


def why_unknown(record: Record, use: Use) -> str:
    """Say why a row is of no format that suits a use."""
    form = format_of(record)
    columns = ", ".join(map(str, record)) or "no column"
    how = columns_to_give([str(name) for name in record], use)
    if form is not None and (lacking := use.needs - form.gives(record)):
        return (
            f"is of the format {form.name} and has no {' and no '.join(sorted(lacking))}, which "
            f"{use.name} need (its columns are {columns}). {how}"
        )
    return f"is of no format that is known for {use.name} (its columns are {columns}). {how}"
