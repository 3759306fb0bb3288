"""Environments: who answers the policy's turns.

What an environment says depends on its settings and on the dialogue alone, so that a round can be
drawn again, in any order, with the same words. The embedded world's is
`plumbline.world.customer.HelpDeskCustomer`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from operator import add, floordiv, mod, mul, sub, truediv
from typing import Protocol

from plumbline.data.records import Message


class Environment(Protocol):
    """Replies to the policy's turns in a dialogue."""

    name: str
    max_turns: int
    """Most turns of the policy in one episode."""

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return the reply to the policy's last turn, or None where the dialogue is over."""
        ...


class Calculator:
    """A tool: works out the last ``<calc>...</calc>`` of a turn and answers with the result.

    Numbers, ``+ - * / // %`` and parentheses, exactly, as fractions. What it cannot work out gets a
    sentence that says why. A turn without the marks is the policy's answer, and ends the dialogue.
    """

    name = "calculator"

    def __init__(self, max_turns: int = 4) -> None:
        self.max_turns = max_turns

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return the result as the tool's message, or None where nothing is to be worked out."""
        expressions = _MARKED.findall(dialogue[-1]["content"])
        return {"role": "tool", "content": calculate(expressions[-1])} if expressions else None


_MARKED = re.compile(r"<calc>(.*?)</calc>", re.DOTALL)
_LONGEST = 200
_LARGEST = 10**15
_DIGITS = 6
_SIGNS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: add,
    ast.Sub: sub,
    ast.Mult: mul,
    ast.Div: truediv,
    ast.FloorDiv: lambda a, b: Fraction(floordiv(a, b)),
    ast.Mod: mod,
}


class _CannotError(Exception):
    """An expression that is not worked out, with the reason."""


def calculate(expression: str) -> str:
    """Return an expression's value as text, or a sentence that says what is wrong with it."""
    try:
        if len(expression) > _LONGEST:
            raise _CannotError(f"it has more than {_LONGEST} characters")
        try:
            tree = ast.parse(expression.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise _CannotError("it is not a sum that I can read") from None
        return _written(_value(tree.body))
    except _CannotError as reason:
        return f"Error: {reason}."


def _value(node: ast.expr) -> Fraction:
    """Return the value of a node; only arithmetic has one."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            value = _fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            value = _value(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
            first, second = _value(left), _value(right)
            if second == 0 and isinstance(sign, ast.Div | ast.FloorDiv | ast.Mod):
                raise _CannotError("it divides by zero")
            value = _SIGNS[type(sign)](first, second)
        case _:
            raise _CannotError("only numbers, + - * / // % and parentheses are worked out")
    if abs(value.numerator) > _LARGEST or value.denominator > _LARGEST:
        raise _CannotError(f"its numbers exceed {_LARGEST:.0e}")
    return value


def _fraction(number: float) -> Fraction:
    """Return a number as it was written: 0.1 is a tenth."""
    if isinstance(number, float) and not abs(number) <= _LARGEST:
        raise _CannotError(f"its numbers exceed {_LARGEST:.0e}")
    return Fraction(str(number)) if isinstance(number, float) else Fraction(number)


def _written(value: Fraction) -> str:
    """Return a number in decimals, at most six behind the point."""
    scaled = round(value * 10**_DIGITS)
    digits = f"{abs(scaled):0{_DIGITS + 1}d}"
    decimals = digits[-_DIGITS:].rstrip("0")
    sign = "-" if scaled < 0 else ""
    return sign + digits[:-_DIGITS] + ("." + decimals if decimals else "")
