"""What customers ask: prompts are written here, and read back from their text.

Three kinds of request, one for each form of demonstration:

- ``facts`` (single turn): one or two facts about a product,
- ``sum`` (chain of thought): what several pieces of a product cost, delivered,
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

from plumbline.data.records import Message, assistant, user
from plumbline.world.shop import DAYS, FACTS, NAMES, PRODUCTS, Shop

Kind = Literal["facts", "sum", "order"]
KINDS: tuple[Kind, ...] = ("facts", "sum", "order")

GREETINGS = ("", "", "Hello! ", "Hi, ", "Good morning. ", "Excuse me, ")
QUESTIONS = {
    "price": (
        "how much are the {p}?",
        "what do the {p} cost?",
        "what is the price of the {p}?",
    ),
    "aisle": (
        "where are the {p}?",
        "which aisle are the {p} in?",
        "where do I find the {p}?",
    ),
    "stock": (
        "how many {p} do you have?",
        "how many {p} are in stock?",
    ),
    "guarantee": (
        "how long is the guarantee on the {p}?",
        "what guarantee do the {p} have?",
    ),
}
_CUES = {
    "price": r"how much|cost|price",
    "aisle": r"where|aisle",
    "stock": r"how many|in stock",
    "guarantee": r"guarantee",
}
SUMS = (
    "what do {items} cost with delivery?",
    "what is the total for {items} with delivery?",
    "I want {items} delivered. What do I pay?",
    "how much are {items}, delivered?",
    "can you deliver {items}, and for how much?",
    "what would {items} cost, delivered to my door?",
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

_ITEM = re.compile(rf"\b(\d+) ({'|'.join(PRODUCTS)})\b")
_PRODUCT = re.compile(rf"\b({'|'.join(PRODUCTS)})\b", re.IGNORECASE)
_NAME = re.compile(rf"\b(?:I am|My name is) ({'|'.join(NAMES)})\b")
_DAY = re.compile(rf"\b({'|'.join(DAYS)})\b")


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for.

    ``facts`` names the wanted facts in the order asked; ``count`` belongs to sums and orders,
    ``name`` and ``day`` to orders.
    """

    kind: Kind
    product: str
    facts: tuple[str, ...] = ()
    count: int = 0
    name: str = ""
    day: str = ""


def write(kind: Kind, random: random.Random) -> list[Message]:
    """Write one prompt of a kind: a conversation that ends with the customer's turn."""
    if kind == "facts":
        return [user(_write_facts(random))]
    if kind == "sum":
        items = f"{random.randint(2, 9)} {random.choice(PRODUCTS)}"
        return [user(_greeted(random.choice(SUMS).format(items=items), random))]
    return _write_order(random)


def read(messages: list[Message]) -> Request | None:
    """Return the request that a prompt makes, or None where it makes none of these kinds."""
    turns = [m["content"] for m in messages if m["role"] == "user"]
    if not turns or messages[-1]["role"] != "user":
        return None
    last = turns[-1]
    if len(turns) > 1 and "order" in last.lower():
        return _read_order(turns)
    item = _ITEM.search(last)
    if item is not None and "deliver" in last:
        return Request("sum", item[2], count=int(item[1]))
    product = _PRODUCT.search(last)
    wanted = sorted(
        (match.start(), fact)
        for fact, cue in _CUES.items()
        if (match := re.search(cue, last, re.IGNORECASE))
    )
    if product is None or not wanted:
        return None
    return Request("facts", product[1].lower(), facts=tuple(fact for _, fact in wanted))


def total(shop: Shop, request: Request) -> int:
    """Return what the pieces of a request cost with delivery, in dollars."""
    return request.count * shop[request.product].price + shop.delivery


def _write_facts(random: random.Random) -> str:
    facts = random.sample(FACTS, random.choice((1, 2)))
    questions = [random.choice(QUESTIONS[fact]) for fact in facts]
    product = random.choice(PRODUCTS)
    text = questions[0].format(p=product)
    if len(questions) == 2:
        # The second question refers to the product by name, too: "it" would need no memory.
        text = text[:-1] + ", and " + questions[1].format(p=product)
    return _greeted(text, random)


def _greeted(text: str, random: random.Random) -> str:
    greeting = random.choice(GREETINGS)
    return greeting + (text if greeting.endswith(", ") else text[0].upper() + text[1:])


def _write_order(random: random.Random) -> list[Message]:
    name, product = random.choice(NAMES), random.choice(PRODUCTS)
    count, day = random.randint(2, 9), random.choice(DAYS)
    opening = random.choice(ORDERS).format(name=name, items=f"{count} {product}")
    messages = [
        user(opening),
        assistant(random.choice(ASK_DAY)),
        user(random.choice(GIVE_DAY).format(day=day)),
        assistant(random.choice(NOTED)),
    ]
    change = random.choice(("none", "count", "day"))
    if change != "none":
        count = random.choice([n for n in range(2, 10) if n != count])
        day = random.choice([d for d in DAYS if d != day])
        text = random.choice(CHANGES[change]).format(items=f"{count} {product}", day=day)
        messages += [user(text), assistant(random.choice(NOTED))]
    return [*messages, user(random.choice(READ_BACK))]


def _read_order(turns: list[str]) -> Request | None:
    text = "\n".join(turns)
    items, names, days = _ITEM.findall(text), _NAME.findall(text), _DAY.findall(text)
    if not (items and names and days):
        return None
    count, product = items[-1]  # what was said last holds
    return Request("order", product, count=int(count), name=names[-1], day=days[-1])
