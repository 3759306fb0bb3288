"""Which column may hold which part, for the message about a table of no known format."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plumbline.data.uses import Use

#: Words in the names of columns that people give to a part, the likeliest first.
_WORDS = {
    "prompt": ("prompt", "question", "query", "instruction", "request", "user", "ask", "input"),
    "response": ("response", "answer", "completion", "output", "reply", "assistant", "target"),
    "chosen": ("chosen", "better", "preferred", "winner", "win", "good", "best", "accepted"),
    "rejected": ("rejected", "worse", "loser", "lose", "bad", "worst", "dispreferred", "refused"),
    "a": ("a", "first", "left"),
    "b": ("b", "second", "right"),
    "label": ("label", "thumbs", "liked", "good"),
}


def guess_columns(names: Sequence[str], use: Use) -> dict[str, str]:
    """Return the likely column of each part that a use needs, where a name tells."""
    guessed: dict[str, str] = {}
    for part in _order(use):
        if part in names:
            guessed[part] = part
            continue
        for word in _WORDS.get(part, ()):
            free = [name for name in names if name not in guessed.values()]
            column = next((name for name in free if word in _words_of(name)), None)
            if column is not None:
                guessed[part] = column
                break
    return guessed


def columns_to_give(names: Sequence[str], use: Use) -> str:
    """Return the sentence that says how to name the columns, with the likely ones filled in."""
    guessed = guess_columns(names, use)
    pairs = [(part, guessed.get(part, "COLUMN")) for part in _order(use)]
    setting = ", ".join(f"{part}: {column}" for part, column in pairs)
    option = ",".join(f"{part}={column}" for part, column in pairs)
    likely = "probably " if guessed else ""
    return (
        f"Say which column holds which part, {likely}columns: {{{setting}}} (on the command line "
        f"--columns {option})"
    )


def _order(use: Use) -> list[str]:
    """Return the parts that a use needs, in the order in which people read them."""
    return [part for part in _WORDS if part in use.needs] + sorted(use.needs - set(_WORDS))


def _words_of(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
