"""Numbers in answers: the result that an answer comes to, and the calculations on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise, takewhile
from typing import NamedTuple

_NUMBER = r"\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\$?\s?\.\d+"
#: Ways in which an answer marks its result, the most explicit first.
_MARKED = (
    re.compile(rf"####\s*(-?\s*(?:{_NUMBER}))"),
    re.compile(rf"\\boxed\{{\s*(-?\s*(?:{_NUMBER}))"),
    re.compile(rf"\banswer\b(?:\s+is)?\s*:?\s*(-?\s*(?:{_NUMBER}))", re.IGNORECASE),
)
#: A minus sign is one only where nothing stands right before it: "3-4" holds no -4.
_ANY = re.compile(rf"(?<![\w.])(?:(?<![\d)])-)?(?:{_NUMBER})")

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


def result_of(text: str) -> Decimal | None:
    r"""Return the number that a text comes to, or None where it holds none.

    What follows ``####``, stands in ``\boxed{}`` or follows ``Answer:`` (the last of each kind, in
    this order), else the last number in the text. ``1,234`` is one number and a currency sign is
    passed over.
    """
    for pattern in _MARKED:
        found = pattern.findall(text)
        if found:
            return _decimal(found[-1])
    found = _ANY.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(text: str) -> Decimal:
    return Decimal(re.sub(r"[\s$,]", "", text))


class Calculation(NamedTuple):
    """One equation in a text, and whether it holds."""

    left: str
    right: str
    holds: bool


def calculations(text: str) -> list[Calculation]:
    """Return every calculation in a text: an expression, ``=`` and a number or an expression.

    ``a = b = c`` is two, as long as one side of each has an operator. Read are + - * / and their
    other signs (x, ×, ÷), brackets, mixed numbers, percentages, thousands' commas and currency
    signs. Words end a calculation (``3 boxes x 4 = 12`` is none), letters for numbers too. What
    GSM8K's calculator marks say (``<<2*3=6>>``) counts once, with the text beside it.

    A result that is written with d decimals holds where it is within half a unit of the last of
    them: 10 / 3 = 3.33 holds, 10 / 3 = 3 does not. A result in per cent may stand for the bare
    number before the sign, too: 45 + 21 = 66% holds.
    """
    found = _equations(_CALCULATOR_MARK.sub("", text))
    beside = {_bare(one) for one in found}
    marked = [one for mark in _CALCULATOR_MARK.findall(text) for one in _equations(mark)]
    return found + [one for one in marked if _bare(one) not in beside]


def _bare(calculation: Calculation) -> str:
    return re.sub(r"[\s$€£,]", "", f"{calculation.left}={calculation.right}")


def _equations(text: str) -> list[Calculation]:
    found = []
    for run in _RUN.findall(text):
        # A full stop or comma that ends a sentence is none of the number's.
        sides = [side.strip().rstrip(".,").rstrip() for side in run.split("=")]
        for left, right in pairwise(sides):
            calculation = _check(left, right)
            if calculation is not None:
                found.append(calculation)
    return found


def _check(left: str, right: str) -> Calculation | None:
    """Check one equation; None where it is none."""
    one, other = _longest_suffix(left), _longest_prefix(right)
    if one is None or other is None or (one.operators == 0 and other.operators == 0):
        return None
    if one.value is None or other.value is None:  # divided by 0
        return Calculation(one.text, other.text, False)
    if other.operators == 0:
        # As many decimals as are written.
        half = Fraction(1, 2 * 10**other.decimals) if other.decimals else Fraction(0)
        wanted = {other.value, 100 * other.value} if other.text.endswith("%") else {other.value}
        holds = any(abs(one.value - value) <= half for value in wanted)
    else:
        holds = one.value == other.value
    return Calculation(one.text, other.text, holds)


class _Read(NamedTuple):
    text: str
    value: Fraction | None
    operators: int
    decimals: int


def _longest_suffix(text: str) -> _Read | None:
    """Read the longest expression that ends where the text does: "5 3 + 4" holds "3 + 4"."""
    starts = [0, *(match.end() for match in re.finditer(r"\s+|[.,](?!\d)", text))]
    # A minus sign with space behind it takes something away from a word that was before it.
    texts = takewhile(lambda part: not re.match(r"[-−–+]\s", part), (text[s:] for s in starts))
    return next((read for part in texts if (read := _read(part)) is not None), None)


def _longest_prefix(text: str) -> _Read | None:
    """Read the longest expression that starts where the text does."""
    ends = [len(text), *(match.start() for match in reversed(list(re.finditer(r"\s+", text))))]
    return next(
        (read for end in ends if (read := _read(text[:end].rstrip(".,"))) is not None), None
    )


def _read(text: str) -> _Read | None:
    """Read a whole text as an expression; None where it is none."""
    tokens = list(_tokens(_MIXED.sub(r"(\1+\2/\3)", _CURRENCY.sub("", text))))
    if not tokens or tokens[-1] is None:
        return None
    try:
        parser = _Parser([token for token in tokens if token is not None])
        value = parser.expression()
    except (ValueError, ZeroDivisionError) as problem:
        if isinstance(problem, ZeroDivisionError):
            return _Read(text.strip(), None, 1, 0)
        return None
    if not parser.done:
        return None
    fraction = re.search(r"\.(\d+)", text)
    return _Read(text.strip(), value, parser.operators, len(fraction[1]) if fraction else 0)


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
