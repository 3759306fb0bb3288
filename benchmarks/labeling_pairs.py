"""Pairs for people who label in benchmarks: responses of a few sentences, with marks to render."""

from __future__ import annotations

import random

from annotation.campaign.pairs import Pair
from plumbline.data.records import user

_SENTENCE = (
    "It is **right** to compare `both` responses to the end before one says which is better. "
)


def pairs_named(name: str, count: int) -> list[Pair]:
    """Return different pairs, the same for the same name."""
    dice = random.Random(name)
    return [
        Pair(
            f"{name}-{n}",
            [user(f"Question {n} of {name}?")],
            f"First {n}. " + _SENTENCE * dice.randrange(2, 40),
            f"Second {n}. " + _SENTENCE * dice.randrange(2, 40),
        )
        for n in range(count)
    ]
