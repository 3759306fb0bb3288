"""How far people agree on the same items: in all, by pairs of people, and by person.

Pure functions over a `VoteTable`. What is undefined is None, with the reason: a coefficient has
no value where all votes are one category, since nothing could have been disagreed upon.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from annotation.agreement import coefficients as c
from annotation.agreement.intervals import METHOD, Bootstrap, Estimate, Figure, Sums
from annotation.agreement.vote_table import MISSING, VoteTable
from plumbline.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Codes = NDArray[np.int64]

#: In the count of majorities: items on which two or more categories share the first place.
NO_MAJORITY = "no majority"


@dataclass(frozen=True)
class PairOfPeople:
    """How two people agree."""

    people: tuple[str, str]
    agreement: Estimate
    """Share of their common items that both put into the same category."""
    kappa: Estimate
    """Cohen's kappa."""
    kappa_linear: Estimate | None = None
    """Cohen's kappa with linear weights, where the categories have an order."""
    kappa_quadratic: Estimate | None = None
    """The same with quadratic weights."""


@dataclass(frozen=True)
class Person:
    """How one person agrees with the others."""

    name: str
    votes: int
    choices: dict[str, int]
    """Votes by category."""
    with_others: Estimate
    """Share of the pairs of a vote of theirs and another's on the same item that are equal."""
    with_majority: Estimate
    """Share of their votes that the majority of the others shares, where the others have one."""


@dataclass(frozen=True)
class Agreement:
    """How far people agree."""

    items: int
    """Items with a vote."""
    items_with_two_votes: int
    votes: int
    votes_per_item: dict[str, int]
    """How many items have one vote, two votes, and so on."""
    choices: dict[str, int]
    """Votes by category."""
    majorities: dict[str, int]
    """Items by the category with the most votes."""
    agreement: Estimate
    """Share of the pairs of votes on the same item that are equal."""
    fleiss_kappa: Estimate
    fleiss_votes: int
    """Fleiss' kappa needs one number of votes an item; this is the one it was taken at."""
    fleiss_left_out: int
    """Items with two votes or more, but not that number: Fleiss' kappa leaves them out."""
    alpha: Estimate
    """Krippendorff's alpha, nominal."""
    alpha_ordinal: Estimate | None
    """Krippendorff's alpha, ordinal, where the categories have an order."""
    order: tuple[str, ...] | None
    """The order of the categories, if they have one."""
    votes_outside_order: int
    """Votes for categories that the order does not name; ordinal figures are without them."""
    pairs: tuple[PairOfPeople, ...]
    people: tuple[Person, ...]
    interval: dict[str, Any]
    """How the intervals were made."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self)


def measure_agreement(
    votes: VoteTable,
    order: Sequence[str] | None = None,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - it is frozen
) -> Agreement:
    """Measure agreement with intervals.

    ``order`` names the categories from one end to the other, and adds the ordinal figures; votes
    for a category that it does not name are missing there, and counted.
    """
    ordinal = votes.with_order(order) if order is not None else None
    pairs = list(itertools.combinations(range(len(votes.people)), 2))
    blocks = [_overall(votes), _fleiss(votes), _alpha(votes, "nominal")]
    if ordinal is not None:
        blocks.append(_alpha(ordinal, "ordinal"))
    for pair in pairs:
        blocks.append(_pair(votes, pair))
        if ordinal is not None:
            blocks.append(_weighted_pair(ordinal, pair))
    for person in range(len(votes.people)):
        blocks += _person(votes, person)
    found = bootstrap.estimates(blocks)

    many = votes.votes_per_item >= 2
    fleiss = c.fleiss_items(votes)
    return Agreement(
        items=int((votes.votes_per_item > 0).sum()),
        items_with_two_votes=int(many.sum()),
        votes=int(votes.votes_per_item.sum()),
        votes_per_item={
            str(n): count for n, count in sorted(Counter(votes.votes_per_item.tolist()).items())
        },
        choices=votes.choices(),
        majorities=_majorities(votes),
        agreement=found["agreement"],
        fleiss_kappa=found["fleiss"],
        fleiss_votes=fleiss.votes,
        fleiss_left_out=int((many & ~fleiss.used).sum()),
        alpha=found["alpha", "nominal"],
        alpha_ordinal=found.get(("alpha", "ordinal")),
        order=tuple(order) if order is not None else None,
        votes_outside_order=int((votes.codes != MISSING).sum() - (ordinal.codes != MISSING).sum())
        if ordinal is not None
        else 0,
        pairs=tuple(
            PairOfPeople(
                people=(votes.people[first], votes.people[second]),
                agreement=found["agreement", first, second],
                kappa=found["kappa", first, second],
                kappa_linear=found.get(("linear", first, second)),
                kappa_quadratic=found.get(("quadratic", first, second)),
            )
            for first, second in pairs
        ),
        people=tuple(
            Person(
                name=name,
                votes=int((votes.codes[:, number] != MISSING).sum()),
                choices=_choices_of(votes, number),
                with_others=found["others", number],
                with_majority=found["majority", number],
            )
            for number, name in enumerate(votes.people)
        ),
        interval={
            "method": METHOD,
            "confidence": bootstrap.confidence,
            "resamples": bootstrap.resamples,
            "seed": bootstrap.seed,
        },
    )


def check_order(order: Sequence[str], categories: Sequence[str]) -> None:
    """Refuse an order of categories that cannot be meant.

    It may name categories that nobody chose, and may leave out some that stand nowhere between
    the others (both are bad, say); but where it does both, a name is most likely misspelt.
    """
    twice = sorted({name for name in order if list(order).count(name) > 1})
    if twice:
        raise ConfigError(f"--ordinal names {', '.join(map(repr, twice))} more than once.")
    if len(order) < 2:
        raise ConfigError(
            "--ordinal needs two categories or more, from one end of the scale to the other."
        )
    unknown = [name for name in order if name not in categories]
    left_out = [name for name in categories if name not in order]
    if unknown and (left_out or len(unknown) > len(order) - 2):
        close = difflib.get_close_matches(unknown[0], left_out, n=1)
        raise ConfigError(
            f"--ordinal names {', '.join(map(repr, unknown))}, which nobody chose"
            + (f", and not {', '.join(map(repr, left_out))}" if left_out else "")
            + ". "
            + (f"Did you mean {close[0]!r}? " if close else "")
            + f"The votes are: {', '.join(map(repr, categories))}."
        )


def _overall(votes: VoteTable) -> Sums:
    figure = Figure("agreement", c.percent_agreement(votes), _with_two(votes), c.ratio_of)
    return Sums(c.agreeing_pairs(votes), (figure,))


def _fleiss(votes: VoteTable) -> Sums:
    used = int(c.fleiss_items(votes).used.sum())
    return Sums(c.fleiss_sums(votes), (Figure("fleiss", c.fleiss_kappa(votes), used, c.fleiss_of),))


def _alpha(votes: VoteTable, level: c.Level) -> Sums:
    value = c.krippendorff_alpha(votes, level)
    figure = Figure(("alpha", level), value, _with_two(votes), c.alpha_of(level))
    return Sums(c.coincidences(votes), (figure,))


def _pair(votes: VoteTable, pair: tuple[int, int]) -> Sums:
    n = len(c.shared(votes, *pair)[0])
    return Sums(
        c.confusion(votes, *pair),
        (
            Figure(("agreement", *pair), c.pair_agreement(votes, *pair), n, c.agreement_of),
            Figure(("kappa", *pair), c.cohen_kappa(votes, *pair), n, c.kappa_of()),
        ),
    )


def _weighted_pair(votes: VoteTable, pair: tuple[int, int]) -> Sums:
    n = len(c.shared(votes, *pair)[0])
    kinds: tuple[c.Weights, ...] = ("linear", "quadratic")
    return Sums(
        c.confusion(votes, *pair),
        tuple(
            Figure((kind, *pair), c.cohen_kappa(votes, *pair, kind), n, c.kappa_of(kind))
            for kind in kinds
        ),
    )


def _person(votes: VoteTable, number: int) -> list[Sums]:
    others, majority = with_others(votes, number), with_majority(votes, number)
    return [
        Sums(sums, (Figure((name, number), c.ratio(sums, nothing), _n(sums), c.ratio_of),))
        for name, sums, nothing in (
            ("others", others, "nobody else voted on their items"),
            ("majority", majority, "the others have no majority on any of their items"),
        )
    ]


def with_others(votes: VoteTable, person: int) -> csr_array:
    """Return (I, 2): how many others said the same as a person, and how many others voted."""
    from scipy.sparse import csr_array

    own, others = _own_and_others(votes, person)
    same = np.take_along_axis(others, np.maximum(own, 0)[:, None], axis=1)[:, 0]
    voted = own != MISSING
    return csr_array(np.stack([same * voted, others.sum(axis=1) * voted], axis=1).astype(float))


def with_majority(votes: VoteTable, person: int) -> csr_array:
    """Return (I, 2): whether a person said what most of the others said, and whether most did.

    The person's own vote is left out of the majority, which it would otherwise help to make.
    """
    from scipy.sparse import csr_array

    own, others = _own_and_others(votes, person)
    most = others.max(axis=1, initial=0)
    clear = (own != MISSING) & (most > 0) & ((others == most[:, None]).sum(axis=1) == 1)
    same = clear & (others.argmax(axis=1) == own)
    return csr_array(np.stack([same, clear], axis=1).astype(float))


def _own_and_others(votes: VoteTable, person: int) -> tuple[Codes, Codes]:
    """Return a person's codes, (I,), and the others' votes by category, (I, K)."""
    own, others = votes.codes[:, person], votes.counts.copy()
    voted = np.flatnonzero(own != MISSING)
    others[voted, own[voted]] -= 1
    return own, others


def _with_two(votes: VoteTable) -> int:
    return int((votes.votes_per_item >= 2).sum())


def _n(sums: csr_array) -> int:
    """Return on how many items a ratio rests."""
    return int((np.asarray(sums.todense())[:, 1] > 0).sum())


def _majorities(votes: VoteTable) -> dict[str, int]:
    voted = votes.votes_per_item > 0
    found = Counter(m for m, has in zip(votes.majorities(), voted, strict=True) if has)
    return {kind: found[kind] for kind in votes.categories} | {NO_MAJORITY: found[None]}


def _choices_of(votes: VoteTable, person: int) -> dict[str, int]:
    codes = votes.codes[:, person]
    return {kind: int((codes == code).sum()) for code, kind in enumerate(votes.categories)}
