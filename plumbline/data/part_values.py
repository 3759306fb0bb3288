"""What the parts of a row may hold: texts, numbers, truth values, options, the right one of them.

Functions raise `ValueError` with the reason where a value is none of these. Reasons continue a
sentence that begins with the row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from plumbline.data.labels import CHOICES, Choice
from plumbline.data.messages import is_missing, kind_of, messages_from, structure_from

Parts = Mapping[str, Any]
T = TypeVar("T")

_PLACE = re.compile(r"[0-9]{1,2}")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def has_something(value: Any) -> bool:
    """Return whether a cell holds anything: not null, NaN, an empty text, list or object."""
    if is_missing(value) or value is False:
        return False
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null", "None")
    return not (isinstance(value, Sequence | Mapping) and len(value) == 0)


_TRUTHS = {
    "true": True, "false": False, "1": True, "0": False, "-1": False,
    "1.0": True, "0.0": False, "-1.0": False, "yes": True, "no": False,
    "positive": True, "negative": False, "accepted": True, "rejected": False,
    "chosen": True,
    "up": True, "down": False, "thumbs_up": True, "thumbs_down": False,
    "thumbs up": True, "thumbs down": False, "\U0001f44d": True, "\U0001f44e": False,
    "good": True, "bad": False, "like": True, "dislike": False,
    "liked": True, "disliked": False, "desirable": True, "undesirable": False,
}  # fmt: skip


def truth_of(value: Any) -> bool | None:
    """Return a label as true or false however it is written; None where it is neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, int | float) and value == -1:  # thumbs as 1 and -1
        return False
    return _TRUTHS.get(value.strip().lower()) if isinstance(value, str) else None


def why_no_truths(labels: Sequence[Any]) -> str | None:
    """Return why the labels of a file are not true or false, although some look so; else None.

    A rating from 1 to 5 has ones, and a vote of -1, 0 or 1 has noughts that are not bad. A few
    odd values among many do not make a file one of these.
    """
    numbers = [number for label in labels if (number := number_or_none(label)) is not None]
    few = max(2, len(labels) / 10)
    if sum(number not in (-1, 0, 1) for number in numbers) >= few:
        shown = ", ".join(f"{number:g}" for number in sorted(set(numbers))[:5])
        return f"has a grade as its label, not true or false: the file's labels are {shown}"
    if numbers.count(-1) >= few and numbers.count(0) >= few:
        return "has a label of a file with -1 and 0, so it is not clear which of them are bad"
    return None


def number_or_none(value: Any) -> float | None:
    """Return a finite number as `number_of` does; None for what is none."""
    try:
        return number_of(value)
    except ValueError:
        return None


def number_of(value: Any) -> float:
    """Return a finite number, also from a text that holds one, as a cell of a table does."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"is {kind_of(value)}, not a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"is {kind_of(value)}, not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"is {number}, not a finite number")
    return number


def text_of(value: Any) -> str:
    """Return a single value as the text that a person would write for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"is {value}, not text")
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"is {kind_of(value)}, not text")


def options_of(parts: Parts) -> list[tuple[str, str]]:
    """Return the options of a question, each with its letter."""
    value = structure_from(parts["options"])
    labels: Sequence[Any] = ()
    if isinstance(value, Mapping) and isinstance(value.get("text"), Sequence):  # ARC
        value, labels = value["text"], value.get("label") or ()
    elif isinstance(value, Mapping):  # {"A": "red", "B": "blue"}
        value, labels = list(value.values()), list(value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError(f"has {kind_of(value)} as its options, not a list")
    if len(value) > len(_LETTERS):
        raise ValueError(f"has {len(value)} options; at most {len(_LETTERS)} have a letter")
    options = []
    for place, text in enumerate(value):
        letter = str(labels[place]) if place < len(labels) else _LETTERS[place]
        if isinstance(text, Mapping):  # {"label": "A", "text": "red"}
            letter, text = str(text.get("label", letter)), text.get("text")
        words = named("options", text_of, text).strip()
        if words[:2] in (f"{letter})", f"{letter}.", f"{letter}:"):  # AQuA: "A)21"
            words = words[2:].strip()
        elif words.startswith(f"({letter})"):
            words = words[len(letter) + 2 :].strip()
        options.append((letter, words))
    return options


def right_option(parts: Parts) -> list[str]:
    """Return letter and text of the option that is right, which may be named by either or place."""
    options, correct = options_of(parts), parts["correct"]
    name = named("correct", text_of, correct).strip()
    by_letter = [option for option in options if option[0] == name]
    by_text = [option for option in options if option[1] == name]
    place = name.removesuffix(".0")  # a CSV column with an empty cell
    by_place = (
        [options[int(place)]] if _PLACE.fullmatch(place) and int(place) < len(options) else []
    )
    is_number = isinstance(correct, int | float) and not isinstance(correct, bool)
    orders = (by_letter, by_place) if is_number else (by_letter, by_text, by_place)
    right = next((order for order in orders if order), None)
    if right is None:
        raise ValueError(f"has the right option {name[:80]!r}, which is none of its options")
    if is_number and not by_letter and by_text and by_text != by_place and _are_numbers(parts):
        raise ValueError(
            f"has the right option {name}, which is one of its options and the place of another"
        )
    return list(right[0])


def _are_numbers(parts: Parts) -> bool:
    """Return whether options are numbers, so that a number may be one of them or its place."""
    options = structure_from(parts["options"])
    return isinstance(options, list) and any(isinstance(text, int | float) for text in options)


def texts_in(value: Any) -> tuple[str, ...]:
    """Return texts that are given as one, as several, as messages, or as SQuAD's answers."""
    if is_missing(value):
        return ()
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, Mapping):
        if "text" in value:
            return texts_in(value["text"])
        if value.keys() >= {"role", "content"} or value.keys() >= {"from", "value"}:
            return (messages_from(value)[-1]["content"],)
        raise ValueError("has an object among its references, not text")
    if isinstance(value, Sequence):
        if value and isinstance(value[0], Mapping) and value[0].keys() & {"role", "from"}:
            return (messages_from(value)[-1]["content"],)
        return tuple(text for entry in value for text in texts_in(entry))
    return (named("references", text_of, value),)


def choice_in(parts: Parts, part: str) -> Choice | None:
    """Return the choice that a part holds; None where it is empty."""
    value = parts.get(part)
    if is_missing(value) or value == "":
        return None
    if value not in CHOICES:
        raise ValueError(f"has the {part} {value!r}, which is none of {', '.join(CHOICES)}")
    choice: Choice = value
    return choice


def number_in(parts: Parts, part: str) -> float | None:
    """Return the number that a part holds; None where it is empty."""
    value = parts.get(part)
    if is_missing(value) or value == "":
        return None
    return named(part, number_of, value)


#: Graded labels in words, as `plumbline.data.labels.Label.strength` counts them.
_GRADES = {
    "tie": 0.0, "equal": 0.0, "same": 0.0,
    "slight": 1.0, "slightly": 1.0, "slightly better": 1.0, "negligibly better": 1.0,
    "clear": 2.0, "clearly": 2.0, "better": 2.0, "clearly better": 2.0,
    "much": 3.0, "much better": 3.0, "significantly better": 3.0,
}  # fmt: skip


def grade_in(parts: Parts, part: str) -> float | None:
    """Return the number that a graded label stands for; None where the part is empty."""
    value = parts.get(part)
    if isinstance(value, str) and (grade := _GRADES.get(value.strip().lower())) is not None:
        return grade
    return number_in(parts, part)


def named(name: str, read: Callable[[Any], T], value: Any) -> T:
    """Read a value; the reason names the part that it is."""
    try:
        return read(value)
    except ValueError as problem:
        raise ValueError(f"'{name}' {problem}") from None
