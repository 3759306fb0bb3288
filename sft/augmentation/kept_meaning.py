"""Whether a text that was rewritten still means the same, as far as simple checks see."""

from __future__ import annotations

import re
from collections import Counter

_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*%?")
_QUOTED = re.compile(r"`[^`\n]+`|https?://\S+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\[[A-Z_]+_\d+\]")
#: Capital letters behind another word: names, and words such as USB.
_NAME = re.compile(r"(?<=[\w,;] )[A-Z][\w'’-]*|\b[A-Z][A-Z0-9]+\b")
_LATIN_IN_CHINESE = re.compile(r"(?<=[\u3400-\u9fff])[A-Za-z][\w-]*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nothing|nobody|without|cannot)\b|n['’]t\b|[不没无勿别]", re.IGNORECASE
)
_PRONOUN = frozenset(("I", "I'm", "I’m", "I'd", "I’d", "I've", "I’ve", "I'll", "I’ll"))


def change_of_meaning(text: str, rewritten: str, longest: float = 2.0) -> str | None:
    """Return what differs in meaning between a text and its rewriting, or None.

    Numbers, names, quoted code, addresses and masks must be the same ones, the same side must be
    said no to, and neither may be more than ``longest`` times as long as the other.
    """
    if _words(text) == _words(rewritten):
        return "is the same text"
    if not 1 / longest <= max(1, len(rewritten)) / max(1, len(text)) <= longest:
        return "is much longer or shorter"
    if Counter(_NUMBER.findall(text)) != Counter(_NUMBER.findall(rewritten)):
        return "has other numbers"
    if set(_QUOTED.findall(text)) != set(_QUOTED.findall(rewritten)):
        return "has other code or addresses"
    if not _names(text) <= _tokens(rewritten):
        return "lacks a name"
    if not _names(rewritten) <= _tokens(text):
        return "has another name"
    if bool(_NEGATION.search(text)) != bool(_NEGATION.search(rewritten)):
        return "says no where the text does not, or the other way round"
    return None


def _words(text: str) -> str:
    return "".join(re.findall(r"\w+", text.casefold()))


def _names(text: str) -> set[str]:
    names = {*_NAME.findall(text), *_LATIN_IN_CHINESE.findall(text)} - _PRONOUN
    return {name.removesuffix("'s").removesuffix("’s").casefold() for name in names}


def _tokens(text: str) -> set[str]:
    words = re.findall(r"[A-Za-z0-9][\w'’-]*", text)
    return {word.removesuffix("'s").removesuffix("’s").casefold() for word in words}
