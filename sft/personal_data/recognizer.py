"""What a recognizer of personal data is, and the text that it reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

#: Full-width digits and signs, each with the one that it stands for. One character stays one, so
#: that places in the text stay what they are.
_PLAIN = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {"\u00a0": " ", "\u3000": " ", "\u202f": " ", "\u2009": " "}
    | dict.fromkeys("‐‑‒–—−", "-")
)
_BEFORE = 30
"""Characters before a number in which a word can say what it is."""


class Span(NamedTuple):
    """Where a text holds personal data, as in ``text[start:end]``, and of which kind."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Recognizer:
    """One kind of personal data."""

    name: str
    find: Callable[[str, tuple[str, ...]], Iterator[tuple[int, int]]]
    """Yield the places of this kind in a text that `plain` returned; also given the regions whose
    local telephone numbers count."""
    help: str
    title: str
    """What a page calls one place of this kind."""
    package: str | None = None
    """A package that it needs (the extra ``privacy``)."""
    reads_regions: bool = False
    """Whether it looks at the regions."""

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs is here."""
        return self.package is None or find_spec(self.package) is not None


def plain(text: str) -> str:
    """Return a text of the same length whose digits and signs are ASCII."""
    return text if text.isascii() else text.translate(_PLAIN)


def words_before(text: str, start: int, pattern: re.Pattern[str]) -> bool:
    """Return whether words shortly before a place say what stands there."""
    return pattern.search(text, max(0, start - _BEFORE), start) is not None


_SIGN_BEFORE = re.compile(r"[+*/=×÷−-]\s*\(?$")
_SIGN_AFTER = re.compile(r"\s*[+*/=×÷]|\s+-\s")
_DIGIT_BEFORE = re.compile(r"\d\s*$")


def in_a_sum(text: str, start: int, end: int) -> bool:
    """Return whether a number stands beside a sign of arithmetic.

    A plus before the number may be part of it; behind another number it is a sign.
    """
    before = text[max(0, start - 4) : start]
    added = text.startswith("+", start) and _DIGIT_BEFORE.search(before)
    return bool(added or _SIGN_BEFORE.search(before) or _SIGN_AFTER.match(text, end))
