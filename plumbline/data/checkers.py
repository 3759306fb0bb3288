"""Checkers: what is wrong with the form of an answer, as a rule that a program can apply."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Protocol

from plumbline.data.records import Message
from plumbline.errors import ConfigError


class Checker(Protocol):
    """Says what is wrong with the form of an answer."""

    def problem(self, prompt: Sequence[Message], response: str) -> str | None:
        """Return the problem, or None where there is none."""
        ...


class Pattern:
    """An answer in which a regular expression is found, such as ``^Answer: `` on some line."""

    def __init__(self, expression: str) -> None:
        try:
            self._pattern = re.compile(expression, re.MULTILINE)
        except re.error as problem:
            raise ConfigError(
                f"{expression!r} is not a regular expression ({problem}), so no answer could be "
                "checked by it."
            ) from None

    def problem(self, prompt: Sequence[Message], response: str) -> str | None:
        """Return the problem, or None where the expression is found."""
        match = self._pattern.search(response)
        return None if match else f"nothing matches {self._pattern.pattern!r}"


class JsonObject:
    """An answer that is a JSON object, alone or in one code fence, with certain keys."""

    _FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n\s*```\s*\Z", re.DOTALL)

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._keys = tuple(keys)

    def problem(self, prompt: Sequence[Message], response: str) -> str | None:
        """Return the problem, or None where the answer is such an object."""
        fenced = self._FENCE.match(response)
        try:
            value = json.loads(fenced[1] if fenced else response)
        except json.JSONDecodeError as problem:
            return f"is not JSON: {problem}"
        if not isinstance(value, dict):
            return f"is {type(value).__name__}, not an object"
        missing = [key for key in self._keys if key not in value]
        return f"has no {', '.join(missing)}" if missing else None
