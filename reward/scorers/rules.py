"""Scorers that are rules: length, a regular expression, a format. No model is asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from plumbline.data.checkers import Checker
from plumbline.data.records import Message
from plumbline.errors import ConfigError

Unit = Literal["words", "characters"]
_COUNTS: dict[Unit, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
}


class LengthScorer:
    """0 for a response whose length is in a range, and less outside.

    Outside, the score is minus the distance to the nearest end of the range, as a multiple of that
    end: a response of 150 words where at most 100 are wanted scores -0.5.
    """

    name = "length"

    def __init__(self, at_least: int = 0, at_most: int | None = None, unit: Unit = "words") -> None:
        if at_least < 0 or (at_most is not None and at_most < max(at_least, 1)):
            raise ConfigError(
                f"A length from {at_least} to {at_most} {unit} is not a range. Give at_least: 0 or "
                "more, and at_most: 1 or more and not below at_least."
            )
        self._least, self._most, self._count = at_least, at_most, _COUNTS[unit]

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number per response: 0 in the range, below 0 outside."""
        return [self._distance(self._count(text)) for text in responses]

    def _distance(self, length: int) -> float:
        if length < self._least:
            return (length - self._least) / self._least
        if self._most is not None and length > self._most:
            return (self._most - length) / self._most
        return 0.0


class PatternScorer:
    """How often a regular expression is found in a response, up to a limit."""

    name = "pattern"

    def __init__(self, expression: str, at_most: int = 1) -> None:
        try:
            self._pattern = re.compile(expression, re.MULTILINE)
        except re.error as problem:
            raise ConfigError(
                f"{expression!r} is not a regular expression ({problem}), so no response could be "
                "scored by it."
            ) from None
        if at_most < 1:
            raise ConfigError(f"at_most is {at_most}, so every response would score 0. Give 1.")
        self._most = at_most

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the number of places where the expression is found, from 0 to the limit."""
        return [float(self._matches(text)) for text in responses]

    def _matches(self, text: str) -> int:
        count = 0
        for _ in self._pattern.finditer(text):
            count += 1
            if count == self._most:
                break
        return count


class FormatScorer:
    """1 for a response with the right form, 0 for any other; a checker knows the form."""

    name = "format"

    def __init__(self, checker: Checker) -> None:
        self._checker = checker

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return 1 or 0 per response."""
        return [
            float(self._checker.problem(prompt, response) is None)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
