"""Demonstrations: how the shop's clerks answered, well and less well.

Real demonstrations are uneven, and so are these: clerks differ in courtesy, some ramble, some
forget half of the question or skip the steps of a sum. What they state is always true. A policy
trained on them has learnt the work but not the manners, which is what preferences are for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from plumbline.data.records import Message
from plumbline.world.requests import Request, read, total
from plumbline.world.shop import Shop

OPENINGS = ("Hello.", "Certainly.", "Gladly.")
CLOSINGS = ("Thank you!", "Happy to help!")
RUDE = ("Read the sign next time.", "Make it quick.")
FILLERS = (
    "Let me look that up in the big book behind the counter.",
    "Customers ask me that nearly every day of the week.",
    "We have kept it on the same shelf for many years now.",
)
STATEMENTS = {
    "price": "The {p} cost ${v}.",
    "aisle": "The {p} are in aisle {v}.",
    "stock": "The {p} have {v} left in stock.",
    "guarantee": "The {p} have a guarantee of {v} years.",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How one answer is given; each field is independent of the others."""

    opening: str = "Certainly."
    closing: str = "Thank you!"
    fillers: tuple[str, ...] = ()
    forgetful: bool = False

    @classmethod
    def sample(cls, random: random.Random) -> Style:
        """Draw the style of a clerk on an ordinary day."""
        closing = random.choices(("", "polite", "rude"), (0.45, 0.45, 0.10))[0]
        return cls(
            opening=random.choice(OPENINGS) if random.random() < 0.45 else "",
            closing={"": "", "polite": random.choice(CLOSINGS), "rude": random.choice(RUDE)}[
                closing
            ],
            fillers=tuple(random.sample(FILLERS, random.choices((0, 1, 2), (0.5, 0.3, 0.2))[0])),
            forgetful=random.random() < 0.3,
        )


def answer(shop: Shop, prompt: list[Message], style: Style) -> str:
    """Respond to a prompt of the shop in a style. Every statement is true."""
    request = read(prompt)
    if request is None:
        raise ValueError(f"a clerk can answer only the shop's own requests, not {prompt[-1]!r}")
    body = {"facts": _facts, "sum": _sum, "order": _order}[request.kind]
    parts = [style.opening, *style.fillers, *body(shop, request, style), style.closing]
    return " ".join(part for part in parts if part)


def _facts(shop: Shop, request: Request, style: Style) -> list[str]:
    facts = request.facts[:1] if style.forgetful else request.facts
    product = shop[request.product]
    return [STATEMENTS[fact].format(p=product.name, v=product.fact(fact)) for fact in facts]


def _sum(shop: Shop, request: Request, style: Style) -> list[str]:
    answer = f"Answer: ${total(shop, request)}."
    if style.forgetful:
        return [answer]
    return [*working(shop, request.count, request.product), answer]


def working(shop: Shop, count: int, product: str) -> list[str]:
    """Return the steps of a sum, one sentence each."""
    price = shop[product].price
    return [
        f"{count} {product} cost {count} x {price} = {count * price}.",
        f"Delivered: {count * price} + {shop.delivery} = {count * price + shop.delivery}.",
    ]


def _order(shop: Shop, request: Request, style: Style) -> list[str]:
    when = "" if style.forgetful else f" on {request.day}"
    return [f"Order: {request.count} {request.product} for {request.name}{when}."]
