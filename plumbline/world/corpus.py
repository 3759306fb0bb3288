"""Raw text for the base model: the shop's notes, its sums and its overheard conversations."""

from __future__ import annotations

import random

from plumbline.data.records import assistant
from plumbline.seeds import rng
from plumbline.world.clerks import STATEMENTS, Style, answer, working
from plumbline.world.requests import KINDS, write
from plumbline.world.shop import DAYS, FACTS, NAMES, PRODUCTS, Shop

_PLAIN = Style(opening="", closing="")


def corpus(data_seed: int, documents: int) -> list[str]:
    """Return ``documents`` short texts; conversations in them carry the chat's own marks."""
    shop, random = Shop.from_seed(data_seed), rng(data_seed, "corpus")
    kinds = random.choices(
        (_notes, _sums, _slips, _conversation), (0.1, 0.2, 0.15, 0.55), k=documents
    )
    return [kind(shop, random) for kind in kinds]


def _notes(shop: Shop, random: random.Random) -> str:
    return " ".join(
        STATEMENTS[fact].format(p=product, v=shop[product].fact(fact))
        for product, fact in ((random.choice(PRODUCTS), random.choice(FACTS)) for _ in range(4))
    )


def _sums(shop: Shop, random: random.Random) -> str:
    lines = [working(shop, random.randint(2, 9), random.choice(PRODUCTS)) for _ in range(3)]
    return " ".join(sentence for line in lines for sentence in line)


def _slips(shop: Shop, random: random.Random) -> str:
    lines = []
    for _ in range(2):
        order = (
            random.choice(NAMES),
            f"{random.randint(2, 9)} {random.choice(PRODUCTS)}",
            random.choice(DAYS),
        )
        a = list(order)
        random.shuffle(a)
        lines.append(", ".join(a) + f". Order: {order[1]} for {order[0]} on {order[2]}.")
    return " ".join(lines)


def _conversation(shop: Shop, random: random.Random) -> str:
    prompt = write(random.choices(KINDS, (0.3, 0.25, 0.45))[0], random)
    style = _PLAIN if random.random() < 0.5 else Style.sample(random)
    messages = [*prompt, assistant(answer(shop, prompt, style))]
    return "<|eos|>".join(f"<|{m['role']}|>{m['content']}" for m in messages)
