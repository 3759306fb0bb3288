"""What the parts of a row may hold: texts, numbers, truth values, options, the right one of them.

Functions raise `ValueError` with the reason where a value is none of these. Reasons continue a
sentence that begins with the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from plumbline.data.labels import CHOICES, Choice
from plumbline.data.messages import is_missing, kind_of, messages_from, structure_from

Parts = Mapping[str, Any]
T = TypeVar("T")

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


def text_of(value: Any) -> str:
    """Return a single value as the text that a person would write for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
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
    if isinstance(correct, int | float) and not isinstance(correct, bool):
        if correct != int(correct) or not 0 <= correct < len(options):
            raise ValueError(f"has the right option {correct!r} of {len(options)}")
        return list(options[int(correct)])
    name = named("correct", text_of, correct).strip()
    for letter, text in options:
        if name in (letter, text):
            return [letter, text]
    if name.isdigit() and int(name) < len(options):
        return list(options[int(name)])
    raise ValueError(f"has the right option {name!r}, which is none of its options")


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
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"has {kind_of(value)} as {part}, not a number") from None


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
