"""Calculations in worked solutions: every equation in a text, and whether it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise, takewhile
from typing import NamedTuple

_CALCULATOR_MARK = re.compile(r"<<([^<>]*)>>")
_OPERATORS = {"x": "*", "X": "*", "×": "*", "·": "*", "*": "*", "÷": "/", "/": "/", "+": "+",
              "-": "-", "−": "-", "–": "-"}  # fmt: skip
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<percent>\s?%)?"
    r"|(?P<operator>[×·*÷/+\-−–]|[xX](?=\s*[\d.($]))|(?P<open>\()|(?P<close>\)))"
)
_MIXED = re.compile(r"(?<![\d.,])(\d+) (\d+)/(\d+)(?![\d.])")
_CURRENCY = re.compile(r"[$€£]\s?")
#: What may stand in a calculation; everything else ends it.
_RUN = re.compile(r"[\d.,()%+\-−–*/÷×·xX=$€£ \t]+")


class Calculation(NamedTuple):
    """One equation in a text, and whether it holds."""

    left: str
    right: str
    holds: bool


def calculations(text: str) -> list[Calculation]:
    """Return every calculation in a text: an expression, ``=`` and a number or an expression.

    ``a = b = c`` is two calculations, if one side of each has an operator. Read are + - * / and
    their other signs (x, ×, ÷), brackets, mixed numbers, percentages, thousands' commas and
    currency signs. Words end a calculation (``3 boxes x 4 = 12`` is none), and so do variables. A
    calculator mark of GSM8K (``<<2*3=6>>``) counts once, together with the text beside it.

    A result with d decimals holds where it is within half a unit of the last of them: 10 / 3 = 3.33
    holds, 10 / 3 = 3 does not. A result in per cent may also be the number before the sign:
    45 + 21 = 66% holds.
    """
    equations = _equations(_CALCULATOR_MARK.sub("", text))
    in_text = {_key(equation) for equation in equations}
    marked = [e for mark in _CALCULATOR_MARK.findall(text) for e in _equations(mark)]
    return equations + [equation for equation in marked if _key(equation) not in in_text]


def _key(calculation: Calculation) -> str:
    return re.sub(r"[\s$€£,]", "", f"{calculation.left}={calculation.right}")


def _equations(text: str) -> list[Calculation]:
    equations = []
    for run in _RUN.findall(text):
        # A full stop or comma that ends a sentence is not part of the number.
        sides = [side.strip().rstrip(".,").rstrip() for side in run.split("=")]
        for left, right in pairwise(sides):
            calculation = _check(left, right)
            if calculation is not None:
                equations.append(calculation)
    return equations


def _check(left: str, right: str) -> Calculation | None:
    """Check one equation; None where it is none."""
    expression, result = _longest_suffix(left), _longest_prefix(right)
    if expression is None or result is None or not expression.operators + result.operators:
        return None
    if expression.value is None or result.value is None:  # divided by 0
        return Calculation(expression.text, result.text, False)
    if result.operators == 0:
        # As many decimals as are written.
        half = Fraction(1, 2 * 10**result.decimals) if result.decimals else Fraction(0)
        values = {result.value, 100 * result.value} if result.text[-1] == "%" else {result.value}
        holds = any(abs(expression.value - value) <= half for value in values)
    else:
        holds = expression.value == result.value
    return Calculation(expression.text, result.text, holds)


class _Expression(NamedTuple):
    text: str
    value: Fraction | None
    operators: int
    decimals: int


def _longest_suffix(text: str) -> _Expression | None:
    """Read the longest expression that ends where the text does: "5 3 + 4" holds "3 + 4"."""
    starts = [0, *(match.end() for match in re.finditer(r"\s+|[.,](?!\d)", text))]
    # A minus sign with a space behind it subtracts from a word before it.
    texts = takewhile(lambda part: not re.match(r"[-−–+]\s", part), (text[s:] for s in starts))
    return next((e for part in texts if (e := _read(part)) is not None), None)


def _longest_prefix(text: str) -> _Expression | None:
    """Read the longest expression that starts where the text does."""
    ends = [len(text), *(match.start() for match in reversed(list(re.finditer(r"\s+", text))))]
    return next((e for end in ends if (e := _read(text[:end].rstrip(".,"))) is not None), None)


def _read(text: str) -> _Expression | None:
    """Read a whole text as an expression; None where it is none."""
    tokens = list(_tokens(_MIXED.sub(r"(\1+\2/\3)", _CURRENCY.sub("", text))))
    if not tokens or tokens[-1] is None:
        return None
    try:
        parser = _Parser([token for token in tokens if token is not None])
        value = parser.expression()
    except (ValueError, ZeroDivisionError) as problem:
        if isinstance(problem, ZeroDivisionError):
            return _Expression(text.strip(), None, 1, 0)
        return None
    if not parser.done:
        return None
    fraction = re.search(r"\.(\d+)", text)
    return _Expression(text.strip(), value, parser.operators, len(fraction[1]) if fraction else 0)


def _tokens(text: str) -> Iterator[str | Fraction | None]:
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            yield None
            return
        place = match.end()
        if match["number"]:
            value = Fraction(match["number"].replace(",", ""))
            yield value / 100 if match["percent"] else value
        elif match["operator"]:
            yield _OPERATORS[match["operator"]]
        else:
            yield "(" if match["open"] else ")"


class _Parser:
    """Sums of products of numbers, negated numbers and brackets. Counts the operators."""

    def __init__(self, tokens: list[str | Fraction]) -> None:
        self._tokens, self._place, self.operators = tokens, 0, 0

    @property
    def done(self) -> bool:
        return self._place == len(self._tokens)

    def expression(self) -> Fraction:
        value = self._product()
        while (sign := self._next("+", "-")) is not None:
            self.operators += 1
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while (sign := self._next("*", "/")) is not None:
            self.operators += 1
            other = self._factor()
            value = value * other if sign == "*" else value / other
        return value

    def _factor(self) -> Fraction:
        if self._next("-") is not None:
            return -self._factor()
        if self._next("(") is not None:
            value = self.expression()
            if self._next(")") is None:
                raise ValueError("a bracket is open")
            return value
        token = None if self.done else self._tokens[self._place]
        if not isinstance(token, Fraction):
            raise ValueError("a number is missing")
        self._place += 1
        return token

    def _next(self, *signs: str) -> str | None:
        if self.done:
            return None
        token = self._tokens[self._place]
        if not isinstance(token, str) or token not in signs:
            return None
        self._place += 1
        return token
