"""Which of two responses is better, as columns of files say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plumbline.data.part_values import Parts, named, number_of

#: What the columns that say which response is better hold, beside a, b, tie and both_bad.
_VERDICTS: Mapping[str, Mapping[Any, str]] = {
    "verdict": {},
    "choice": {0: "a", 1: "b"},
    "winner": {
        "model_a": "a", "model_b": "b", "A": "a", "B": "b", "A>B": "a", "B>A": "b",
        "response_a": "a", "response_b": "b", "tie (bothbad)": "both_bad", "bothbad": "both_bad",
    },
    "better_response_id": {0: "a", 1: "b"},
    "labels": {1: "a", 0: "b"},  # SHP: 1 where A is preferred
}  # fmt: skip
_WHOLE = re.compile(r"-?[0-9]{1,3}(\.0+)?")
#: Columns whose sign says it: below zero the first response is better.
_SIGNED = ("preference_strength", "overall_preference")


def verdict_of(column: str, value: Any) -> str:
    """Return what a column says: a, b, tie or both_bad; raise `ValueError` where it says none."""
    if column in _SIGNED:
        number = named(column, number_of, value)
        return "tie" if number == 0 else "a" if number < 0 else "b"
    text = value.strip() if isinstance(value, str) else value
    if text in ("a", "b", "tie", "both_bad"):
        return str(text)
    verdicts = _VERDICTS[column]
    if isinstance(text, str) and text not in verdicts and _WHOLE.fullmatch(text):
        text = int(float(text))  # a cell of CSV
    if isinstance(text, bool) or not isinstance(text, str | int | float) or text not in verdicts:
        raise ValueError(
            f"has the {column} {str(value)[:80]!r}, which does not say which response is better"
        )
    return verdicts[text]


def strength_of(column: str, value: Any) -> float | None:
    """Return by how much the better response is better, where the column is graded; else None."""
    return abs(number_of(value)) if column in _SIGNED else None


def with_verdict(parts: Parts, verdict: str) -> Parts:
    """Return the parts of two responses with the better as chosen; a tie chooses neither."""
    if verdict == "a":
        return {**parts, "chosen": parts["a"], "rejected": parts["b"]}
    if verdict == "b":
        return {**parts, "chosen": parts["b"], "rejected": parts["a"]}
    return parts
