"""Environments: who answers the policy's turns.

An environment is what it was made of and nothing else: what it says depends on the dialogue alone,
so that a round can be drawn again, in any order, with the same words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from operator import add, floordiv, mod, mul, sub, truediv
from random import Random

from plumbline.data.records import Message, prompt_id, user
from plumbline.seeds import rng
from plumbline.world.gold import gold_score
from plumbline.world.requests import CHANGES, QUESTIONS, READ_BACK, SUMS, Request, read
from plumbline.world.shop import DAYS, FACTS, PRODUCTS, Shop

_NOT_ANSWERED = ("Sorry, I asked: ", "That is not what I asked. ", "Please, once more: ")
_AND = ("Thanks. And ", "Good. Then ", "I see. Now, ")
#: Of customers who got an answer, the share that has no further question.
_SATISFIED = 0.25


class HelpDeskCustomer:
    """A customer of the embedded world's help desk, who has further questions.

    Who got no answer asks again. Who got one, true or not, which a customer cannot know, leaves or
    goes on: after a fact or a sum with another question, after an order with a change to it. Each
    turn makes a request that the gold utility reads from the dialogue, so that it can judge the
    answer to whichever turn is the last. A dialogue that is none of this world ends at once.
    """

    name = "customer"

    def __init__(self, data_seed: int, turns: int = 3) -> None:
        self.turns = turns
        self._data_seed, self._shop = data_seed, Shop.from_seed(data_seed)

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return what the customer says next, or None where the customer leaves."""
        asked, answer = list(dialogue[:-1]), dialogue[-1]["content"]
        request = read(asked)
        if request is None:
            return None
        random = rng(self._data_seed, "customer", prompt_id(dialogue))
        if gold_score(self._shop, asked, answer).complete < 1:
            return user(random.choice(_NOT_ANSWERED) + _ask(request, random))
        if random.random() < _SATISFIED:
            return None
        return user(_further(request, random))


def _ask(request: Request, random: Random) -> str:
    """Return a question that makes a request; an order is already in the dialogue."""
    if request.kind == "order":
        return random.choice(READ_BACK)
    if request.kind == "sum":
        return random.choice(SUMS).format(items=f"{request.count} {request.product}")
    asked = [random.choice(QUESTIONS[fact]).format(p=request.product) for fact in request.facts]
    return asked[0] if len(asked) == 1 else asked[0][:-1] + ", and " + asked[1]


def _further(request: Request, random: Random) -> str:
    """Return what the same customer wants next."""
    if request.kind == "order":
        part = random.choice(("count", "day"))
        count = random.choice([n for n in range(2, 10) if n != request.count])
        day = random.choice([d for d in DAYS if d != request.day])
        change = random.choice(CHANGES[part]).format(items=f"{count} {request.product}", day=day)
        return f"{change} {_ask(request, random)}"
    product = random.choice([p for p in PRODUCTS if p != request.product])
    if random.random() < 0.5:
        following = Request("facts", product, facts=(random.choice(FACTS),))
    else:
        following = Request("sum", product, count=random.randint(2, 9))
    return random.choice(_AND) + _ask(following, random)


class Calculator:
    """A tool: works out the last ``<calc>...</calc>`` of a turn and answers with the result.

    Numbers, ``+ - * / // %`` and parentheses, exactly, as fractions. What it cannot work out gets a
    sentence that says why. A turn without the marks is the policy's answer, and ends the dialogue.
    """

    name = "calculator"

    def __init__(self, turns: int = 4) -> None:
        self.turns = turns

    def reply(self, dialogue: Sequence[Message]) -> Message | None:
        """Return the result as the tool's message, or None where nothing is to be worked out."""
        asked = _MARKED.findall(dialogue[-1]["content"])
        return {"role": "tool", "content": worked_out(asked[-1])} if asked else None


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


def worked_out(expression: str) -> str:
    """Return an expression's value as text, or a sentence that says what is wrong with it."""
    try:
        if len(expression) > _LONGEST:
            raise _CannotError(f"it has more than {_LONGEST} characters")
        try:
            tree = ast.parse(expression.strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise _CannotError("it is no sum that I can read") from None
        return _written(_value(tree.body))
    except _CannotError as reason:
        return f"Error: {reason}."


def _value(node: ast.expr) -> Fraction:
    """Return the value of a node; only arithmetic has one."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            found = _fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            found = -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            found = _value(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
            one, other = _value(left), _value(right)
            if other == 0 and isinstance(sign, ast.Div | ast.FloorDiv | ast.Mod):
                raise _CannotError("it divides by nought")
            found = _SIGNS[type(sign)](one, other)
        case _:
            raise _CannotError("only numbers, + - * / // % and parentheses are worked out")
    if abs(found.numerator) > _LARGEST or found.denominator > _LARGEST:
        raise _CannotError(f"its numbers exceed {_LARGEST:.0e}")
    return found


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
