"""What customers ask: prompts are written here, and read back from their text.

Three kinds of request, one for each form of demonstration:

- ``facts`` (single turn): one or two facts about a product,
- ``sum`` (chain of thought): what several products cost together,
- ``order`` (multi-turn): name, product, count and day are given over several turns, some are
  changed later, and the last turn asks to have the order read back.

`read` recovers the request from the prompt's text alone, so that the gold utility can judge any
prompt and needs no hidden column beside it.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from plumbline.records import Message
from plumbline.world.shop import DAYS, FACTS, NAMES, PRODUCTS, Shop, plural

Kind = Literal["facts", "sum", "order"]
KINDS: tuple[Kind, ...] = ("facts", "sum", "order")

GREETINGS = ("", "", "Hello! ", "Hi, ", "Good morning. ", "Excuse me, ")
QUESTIONS = {
    "price": (
        "how much is the {p}?",
        "what does the {p} cost?",
        "what is the price of the {p}?",
    ),
    "aisle": (
        "where is the {p}?",
        "which aisle is the {p} in?",
        "where do I find the {p}?",
    ),
    "stock": (
        "how many {p}s do you have?",
        "how many {p}s are in stock?",
    ),
    "guarantee": (
        "how long is the guarantee on the {p}?",
        "what guarantee does the {p} have?",
    ),
}
_CUES = {
    "price": r"how much|cost|price",
    "aisle": r"where|aisle",
    "stock": r"how many|in stock",
    "guarantee": r"guarantee",
}
SUMS = (
    "What do {a} and {b} cost?",
    "What is the total for {a} and {b}?",
    "I want {a} and {b}. What do I pay?",
    "How much are {a} and {b} together?",
)
ORDERS = (
    "Hi, I am {name}. Please keep {items} for me.",
    "My name is {name}. Can you put {items} aside?",
    "I am {name} and I want to order {items}.",
)
ASK_DAY = ("Which day will you collect?", "When will you come?")
GIVE_DAY = ("On {day}.", "{day} suits me.", "I come on {day}.")
NOTED = ("Noted.", "All right.")
CHANGES = {
    "count": ("Make it {items} instead.", "Sorry, I need {items}."),
    "day": ("Can I come on {day} instead?", "Sorry, I can only come on {day}."),
}
READ_BACK = ("Please read my order back.", "What is my order now?", "Can you confirm my order?")

_ITEM = re.compile(rf"\b(\d+) ({'|'.join(PRODUCTS)})s?\b")
_PRODUCT = re.compile(rf"\b({'|'.join(PRODUCTS)})s?\b", re.IGNORECASE)
_NAME = re.compile(rf"\b(?:I am|My name is) ({'|'.join(NAMES)})\b")
_DAY = re.compile(rf"\b({'|'.join(DAYS)})\b")


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for.

    ``items`` holds ``(count, product)``: none for ``facts``, two for ``sum``, one for ``order``.
    ``facts`` names the wanted facts in the order asked; ``name`` and ``day`` belong to orders.
    """

    kind: Kind
    product: str = ""
    facts: tuple[str, ...] = ()
    items: tuple[tuple[int, str], ...] = ()
    name: str = ""
    day: str = ""


def write(kind: Kind, random: random.Random) -> list[Message]:
    """Write one prompt of a kind: a conversation that ends with the customer's turn."""
    if kind == "facts":
        return [_user(_write_facts(random))]
    if kind == "sum":
        first, second = random.sample(PRODUCTS, 2)
        a, b = (plural(p, random.randint(2, 4)) for p in (first, second))
        return [_user(random.choice(GREETINGS) + random.choice(SUMS).format(a=a, b=b))]
    return _write_order(random)


def read(messages: list[Message]) -> Request | None:
    """Return the request that a prompt makes, or None where it makes none of these kinds."""
    turns = [m["content"] for m in messages if m["role"] == "user"]
    if not turns or messages[-1]["role"] != "user":
        return None
    last = turns[-1]
    if len(turns) > 1 and "order" in last.lower():
        return _read_order(turns)
    items = _ITEM.findall(last)
    if len(items) == 2:
        return Request("sum", items=tuple((int(count), product) for count, product in items))
    product = _PRODUCT.search(last)
    asked = sorted(
        (match.start(), fact)
        for fact, cue in _CUES.items()
        if (match := re.search(cue, last, re.IGNORECASE))
    )
    if product is None or not asked:
        return None
    return Request("facts", product[1].lower(), facts=tuple(fact for _, fact in asked))


def total(shop: Shop, request: Request) -> int:
    """Return what the items of a request cost together, in dollars."""
    return sum(count * shop[product].price for count, product in request.items)


def _write_facts(random: random.Random) -> str:
    facts = random.sample(FACTS, random.choice((1, 2)))
    asked = [random.choice(QUESTIONS[fact]) for fact in facts]
    product = random.choice(PRODUCTS)
    text = asked[0].format(p=product)
    if len(asked) == 2:
        # The second question refers to the product by name, too: "it" would need no memory.
        text = text[:-1] + ", and " + asked[1].format(p=product)
    greeting = random.choice(GREETINGS)
    return greeting + (text if greeting.endswith(", ") else text[0].upper() + text[1:])


def _write_order(random: random.Random) -> list[Message]:
    name, product = random.choice(NAMES), random.choice(PRODUCTS)
    count, day = random.randint(1, 9), random.choice(DAYS)
    opening = random.choice(ORDERS).format(name=name, items=plural(product, count))
    messages = [
        _user(opening),
        _assistant(random.choice(ASK_DAY)),
        _user(random.choice(GIVE_DAY).format(day=day)),
        _assistant(random.choice(NOTED)),
    ]
    change = random.choice(("none", "count", "day"))
    if change != "none":
        count = random.choice([n for n in range(1, 10) if n != count])
        day = random.choice([d for d in DAYS if d != day])
        text = random.choice(CHANGES[change]).format(items=plural(product, count), day=day)
        messages += [_user(text), _assistant(random.choice(NOTED))]
    return [*messages, _user(random.choice(READ_BACK))]


def _read_order(turns: list[str]) -> Request | None:
    text = "\n".join(turns)
    items, names, days = _ITEM.findall(text), _NAME.findall(text), _DAY.findall(text)
    if not (items and names and days):
        return None
    count, product = items[-1]  # what was said last holds
    return Request("order", product, items=((int(count), product),), name=names[-1], day=days[-1])


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}
