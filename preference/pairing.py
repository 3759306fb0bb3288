"""Which of a prompt's scored responses make pairs: pure functions of their scores.

Each takes the scores of ``k`` responses and returns pairs of their numbers, the better one first.
`PAIRINGS` at the end has one row for each ``pairing``.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from plumbline.tables import Table

Pairs = list[tuple[int, int]]


class PairingSettings(NamedTuple):
    """What a way of pairing can be told."""

    target_gap: float = 1.0
    rso_beta: float = 0.5


PairingFunction = Callable[[Sequence[float], PairingSettings, random.Random], Pairs]
"""Maps scores [k], settings and a generator to pairs of numbers."""


@dataclass(frozen=True)
class Pairing:
    """A row of the table of ways of pairing."""

    name: str
    function: PairingFunction
    setting: str | None = None
    """The setting that it reads."""


def best_worst(scores: Sequence[float], settings: PairingSettings, rng: random.Random) -> Pairs:
    """Return the best against the worst response; of equal ones, the first."""
    numbers = range(len(scores))
    best = max(numbers, key=lambda n: (scores[n], -n))
    worst = min(numbers, key=lambda n: (scores[n], n))
    return [(best, worst)] if scores[best] > scores[worst] else []


def all_pairs(scores: Sequence[float], settings: PairingSettings, rng: random.Random) -> Pairs:
    """Return every two responses with different scores."""
    return [
        (a, b) if scores[a] > scores[b] else (b, a)
        for a, b in itertools.combinations(range(len(scores)), 2)
        if scores[a] != scores[b]
    ]


def near_gap(scores: Sequence[float], settings: PairingSettings, rng: random.Random) -> Pairs:
    """Return the pair whose scores differ most nearly by ``target_gap``."""
    pairs = all_pairs(scores, settings, rng)
    nearest = min(
        pairs, key=lambda pair: abs(scores[pair[0]] - scores[pair[1]] - settings.target_gap),
        default=None,
    )  # fmt: skip
    return [] if nearest is None else [nearest]


def rso(scores: Sequence[float], settings: PairingSettings, rng: random.Random) -> Pairs:
    """Return a pair of responses kept by statistical rejection sampling (RSO; Liu et al., 2024).

    A response is accepted with probability exp((score - best) / beta), so that those kept are
    drawn, nearly, from the policy that is best for the score under a KL penalty of beta
    (algorithm 1 there). Passes over the responses continue until two are accepted.
    """
    left = list(range(len(scores)))
    kept: list[int] = []
    while len(kept) < 2 and left:
        best = max(scores[n] for n in left)
        accepted = [
            n for n in left if rng.random() < math.exp((scores[n] - best) / settings.rso_beta)
        ]
        kept += accepted[: 2 - len(kept)]
        left = [n for n in left if n not in kept]
    return [(kept[a], kept[b]) for a, b in all_pairs([scores[n] for n in kept], settings, rng)]


def similarity(text: str, other_text: str) -> float:
    """Return the share of characters that two texts have in common in order, from 0 to 1.

    2 M / (characters of both), with M the length of their longest common subsequence.
    """
    from rapidfuzz.distance import LCSseq

    length = len(text) + len(other_text)
    return 2 * LCSseq.similarity(text, other_text) / length if length else 1.0


def passes(
    text: str, other_text: str, max_similarity: float | None, max_length_ratio: float | None
) -> bool:
    """Return whether two texts are different enough, and of similar enough length, in characters.

    None sets no limit.
    """
    if max_similarity is not None and similarity(text, other_text) > max_similarity:
        return False
    short, long = sorted((len(text), len(other_text)))
    return max_length_ratio is None or long <= max_length_ratio * short


PAIRINGS = Table(
    "way of pairing",
    [
        Pairing("best_worst", best_worst),
        Pairing("all", all_pairs),
        Pairing("near_gap", near_gap, "target_gap"),
        Pairing("rso", rso, "rso_beta"),
    ],
)
