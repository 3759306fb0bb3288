"""Negatives written by hand's rule: good responses with one fault each, by a seed.

A model's own samples seldom show every fault that matters, and a pair of which both sides differ in
one thing alone teaches that thing. Each function returns None where a text has nothing to spoil.
`CORRUPTIONS` at the end has one row for each.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from plumbline.tables import Table

CorruptionFunction = Callable[[str, random.Random], str | None]
"""Maps a good response and a generator to the response with a fault, or None."""

_NUMBER = re.compile(r"\d(?:[\d,]*\d)?(?:\.\d+)?")
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+|\n+")
_POLITE = re.compile(
    r"\s*\b(?:thank you(?: very much| so much)?|thanks(?: a lot)?|you(?:'| a)re welcome|"
    r"happy to help|glad to help|have a (?:nice|good|great) day)\b[^.!?\n]*[.!?]?",
    re.IGNORECASE,
)
_PLEASE = re.compile(r"\bplease,?\s+", re.IGNORECASE)
_RUDE = (
    "You could have found that out yourself.",
    "I have better things to do than to answer this.",
    "Did you even think before you asked?",
    "That is a silly question.",
    "Do not ask me again.",
)


@dataclass(frozen=True)
class Corruption:
    """A row of the table of faults."""

    name: str
    function: CorruptionFunction


def wrong_number(text: str, rng: random.Random) -> str | None:
    """Change one digit of one number; its first digit does not become 0."""
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    number = rng.choice(numbers)
    places = [n for n in range(number.start(), number.end()) if text[n].isdigit()]
    place = rng.choice(places)
    least = 1 if place == places[0] and len(places) > 1 else 0
    digit = rng.choice([str(d) for d in range(least, 10) if str(d) != text[place]])
    return text[:place] + digit + text[place + 1 :]


def skipped_step(text: str, rng: random.Random) -> str | None:
    """Leave one sentence or line out that is not the last; None of a text that has only one."""
    ends = [match.span() for match in _SENTENCE_END.finditer(text.rstrip())]
    starts = [0, *(end for _, end in ends)]
    if len(starts) < 2:
        return None
    step = rng.randrange(len(starts) - 1)
    return text[: starts[step]] + text[starts[step + 1] :]


def rude_tone(text: str, rng: random.Random) -> str | None:
    """Leave thanks and politeness out, and say something rude before or after the rest."""
    if not text.strip():
        return None
    plain = _PLEASE.sub("", _POLITE.sub("", text)).strip()
    remark = rng.choice(_RUDE)
    parts = [remark, plain] if rng.random() < 0.5 else [plain, remark]
    return " ".join(part for part in parts if part)


CORRUPTIONS = Table(
    "fault",
    [
        Corruption("wrong_number", wrong_number),
        Corruption("skipped_step", skipped_step),
        Corruption("rude_tone", rude_tone),
    ],
    from_function=Corruption,
)
