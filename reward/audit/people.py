"""A model's agreement with people, against the people's agreement among themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from reward.audit.shares import CONFIDENCE, Share, share_of

_RESAMPLES = 1000
_PERSON = re.compile(
    r"(?:annotator|labell?er|rater|person|human|expert|worker|judge|participant)[ _.-]?\w*",
    re.IGNORECASE,
)
#: What a vote of a person's column means.
_VOTES: Mapping[str, str] = {
    "1": "a", "2": "b", "0": "tie", "a": "a", "b": "b", "tie": "tie", "model_a": "a",
    "model_b": "b", "response1": "a", "response2": "b", "response_a": "a", "response_b": "b",
    "first": "a", "second": "b", "equal": "tie", "same": "tie",
}  # fmt: skip


class Agreement(NamedTuple):
    """Agreement on pairs: of the model with people, and of people with each other."""

    pairs: int
    people: int
    model: Share
    """How often the model agrees with a person's vote; where either sees a tie, half."""
    between_people: Share | None
    """How often two people agree on a pair; None where no pair has two votes."""
    gap: float | None
    gap_low: float | None
    gap_high: float | None
    """Model less people, with an interval over pairs."""


def columns_of_people(record: Mapping[str, Any]) -> list[str]:
    """Return the columns of a row that hold a person's vote each, such as annotator1."""
    return [
        name
        for name, value in record.items()
        if _PERSON.fullmatch(name) and _vote_of(value) is not None
    ]


def votes_in(record: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Return the votes of a row: a, b or tie; cells that hold no vote are passed over."""
    votes = (_vote_of(record.get(name)) for name in columns)
    return [vote for vote in votes if vote is not None]


def _vote_of(value: Any) -> str | None:
    text = str(value).strip().lower()
    return _VOTES.get(text.removesuffix(".0"))  # as tables with holes write whole numbers


def majority(votes: Sequence[str]) -> str | None:
    """Return the vote of more people than any other; None where there is none."""
    ranked = Counter(votes).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def agreement(
    votes: Sequence[Sequence[str]], margins: Sequence[float], people: int, seed: int
) -> Agreement:
    """Return the agreement of a model with people.

    ``votes`` [N]: the votes on each pair, a, b or tie. ``margins`` [N]: the score of a less that of
    b. No model is expected to agree with people more than they agree with each other.
    """
    by_pair = [
        (
            float(np.mean([_agree("a" if m > 0 else "b" if m < 0 else "tie", v) for v in of_pair])),
            _between(of_pair),
        )
        for of_pair, m in zip(votes, margins, strict=True)
        if of_pair
    ]
    models = [model for model, _ in by_pair]
    both = [(model, between) for model, between in by_pair if between is not None]
    between_people = share_of([between for _, between in both]) if both else None
    if not both:
        return Agreement(len(by_pair), people, share_of(models), None, None, None, None)
    gaps = np.array([model - between for model, between in both])
    draw = np.random.default_rng(seed)
    means = gaps[draw.integers(len(gaps), size=(_RESAMPLES, len(gaps)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Agreement(
        len(by_pair), people, share_of(models), between_people,
        float(gaps.mean()), float(low), float(high),
    )  # fmt: skip


def _agree(vote: str, other: str) -> float:
    if vote == other:
        return 1.0
    return 0.5 if "tie" in (vote, other) else 0.0


def _between(votes: Sequence[str]) -> float | None:
    """Return how often two of the people who voted on a pair agree; None with a single vote."""
    pairs = [
        _agree(vote, other) for place, vote in enumerate(votes) for other in votes[place + 1 :]
    ]
    return float(np.mean(pairs)) if pairs else None
