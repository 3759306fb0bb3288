"""Agreement of people on the same items: of all together, of pairs of people, and by person.

Pure functions over a `VoteTable`. An undefined value is None, with the reason: a coefficient has no
value where all votes are in one category, because there nobody could have disagreed.

Shapes: K categories, N pairs of people.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from annotation.agreement import coefficients as c
from annotation.agreement.intervals import (
    METHOD,
    Bootstrap,
    Estimate,
    Floats,
    Key,
    Statistic,
    Sums,
    Value,
)
from annotation.vote_table import VoteTable
from plumbline.errors import ConfigError

#: In the count of majorities: items on which two or more categories share the first place.
NO_MAJORITY = "no majority"


@dataclass(frozen=True)
class PairOfPeople:
    """Agreement of two people who share an item."""

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
    """Agreement of one person with the others."""

    name: str
    votes: int
    choices: dict[str, int]
    """Votes by category."""
    with_others: Estimate
    """Share of equal votes among the pairs of one of their votes and another's on the same item."""
    with_majority: Estimate
    """Share of their votes that equal the majority of the others, where the others have one."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of people, with intervals."""

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
    """Fleiss' kappa needs the same number of votes on each item: this number."""
    fleiss_left_out: int
    """Items with two or more votes, but not that number; Fleiss' kappa leaves them out."""
    alpha: Estimate
    """Krippendorff's alpha, nominal."""
    alpha_ordinal: Estimate | None
    """Krippendorff's alpha, ordinal, where the categories have an order."""
    order: tuple[str, ...] | None
    """The order of the categories, if they have one."""
    votes_outside_order: int
    """Votes for categories that the order does not name; ordinal coefficients leave them out."""
    pairs: tuple[PairOfPeople, ...]
    """The pairs of people who share an item."""
    pairs_left_out: bool
    """Whether there are too many of them (`coefficients.MOST_PAIRS`) to have figures."""
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

    ``order`` names the categories from one end to the other, and adds the ordinal coefficients.
    Votes for a category that it does not name are missing there, and counted.
    """
    ordinal = votes.with_order(order) if order is not None else None
    meet = c.people_who_meet(votes)
    blocks = [_overall(votes), _fleiss(votes), _alpha(votes, "nominal"), _pairs(votes, meet)]
    if ordinal is not None:
        blocks += [_alpha(ordinal, "ordinal"), _weighted_pairs(ordinal)]
    blocks += _people(votes)
    estimates = bootstrap.estimates(blocks)

    many = votes.votes_per_item >= 2
    fleiss = c.fleiss_items(votes)
    per_item = Counter(votes.votes_per_item.tolist())
    return Agreement(
        items=int((votes.votes_per_item > 0).sum()),
        items_with_two_votes=int(many.sum()),
        votes=votes.votes,
        votes_per_item={str(n): count for n, count in sorted(per_item.items())},
        choices=votes.choices(),
        majorities=_majorities(votes),
        agreement=estimates["agreement"],
        fleiss_kappa=estimates["fleiss"],
        fleiss_votes=fleiss.votes,
        fleiss_left_out=int((many & ~fleiss.used).sum()),
        alpha=estimates["alpha", "nominal"],
        alpha_ordinal=estimates.get(("alpha", "ordinal")),
        order=tuple(order) if order is not None else None,
        votes_outside_order=votes.votes - ordinal.votes if ordinal is not None else 0,
        pairs=_pair_rows(votes, meet, estimates, ordinal=ordinal is not None),
        pairs_left_out=c.too_many_meet(votes),
        people=tuple(
            Person(
                name=name,
                votes=int(votes.counts_by_person[number].sum()),
                choices=dict(
                    zip(votes.categories, map(int, votes.counts_by_person[number]), strict=True)
                ),
                with_others=estimates["others", number],
                with_majority=estimates["majority", number],
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


def _pair_rows(
    votes: VoteTable, meet: c.PeopleWhoMeet, estimates: dict[Key, Estimate], *, ordinal: bool
) -> tuple[PairOfPeople, ...]:
    """Return the agreement of every pair of people who share an item."""

    def weighted(kind: str, first: int, second: int) -> Estimate | None:
        # They may share an item only outside the order.
        nothing = Estimate(None, reason=_NO_ITEM_OF_BOTH)
        return estimates.get((kind, first, second), nothing) if ordinal else None

    return tuple(
        PairOfPeople(
            people=(votes.people[first], votes.people[second]),
            agreement=estimates["agreement", first, second],
            kappa=estimates["kappa", first, second],
            kappa_linear=weighted("linear", first, second),
            kappa_quadratic=weighted("quadratic", first, second),
        )
        for first, second in zip(meet.first.tolist(), meet.second.tolist(), strict=True)
    )


def check_order(order: Sequence[str], categories: Sequence[str]) -> None:
    """Refuse an order of categories that is most likely a mistake.

    It may name categories that nobody chose, and it may leave out some that lie nowhere between the
    others (both are bad, say). Where it does both, a name is most likely misspelt.
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


_NO_ITEM_OF_BOTH = "no item has a vote of both"


def _overall(votes: VoteTable) -> Sums:
    value, n = c.percent_agreement(votes), _with_two(votes)
    return Sums(c.agreeing_pairs(votes), (Statistic.single("agreement", value, n, c.ratio_of),))


def _fleiss(votes: VoteTable) -> Sums:
    value, n = c.fleiss_kappa(votes), int(c.fleiss_items(votes).used.sum())
    return Sums(c.fleiss_sums(votes), (Statistic.single("fleiss", value, n, c.fleiss_of),))


def _alpha(votes: VoteTable, level: c.Level) -> Sums:
    value = c.krippendorff_alpha(votes, level)
    name = ("alpha", level)
    return Sums(
        c.coincidences(votes),
        (Statistic.single(name, value, _with_two(votes), c.alpha_of(level)),),
    )


def _pairs(votes: VoteTable, meet: c.PeopleWhoMeet) -> Sums:
    return Sums(
        meet.confusion,
        (
            _of_pairs("agreement", votes, meet, c.agreement_of),
            _of_pairs("kappa", votes, meet, c.kappa_of()),
        ),
    )


def _weighted_pairs(votes: VoteTable) -> Sums:
    meet = c.people_who_meet(votes)
    return Sums(
        meet.confusion,
        (
            _of_pairs("linear", votes, meet, c.kappa_of("linear")),
            _of_pairs("quadratic", votes, meet, c.kappa_of("quadratic")),
        ),
    )


def _of_pairs(
    name: str, votes: VoteTable, meet: c.PeopleWhoMeet, of: Callable[[Floats], Floats]
) -> Statistic:
    """Return one coefficient of every pair of people who meet."""
    flat = meet.tables.reshape(1, len(meet.first), len(votes.categories) ** 2)
    values = of(flat)[0] if len(meet.first) else np.zeros(0)
    return Statistic(
        [(name, int(a), int(b)) for a, b in zip(meet.first, meet.second, strict=True)],
        [
            Value(None, _why_undefined(table, votes)) if np.isnan(value) else Value(float(value))
            for value, table in zip(values, meet.tables, strict=True)
        ],
        meet.tables.sum(axis=(1, 2)).astype(int).tolist(),
        of,
    )


def _why_undefined(table: Floats, votes: VoteTable) -> str:
    used = np.flatnonzero(table.sum(axis=0) + table.sum(axis=1))
    return f"both chose only {votes.categories[used[0]]!r}"


def _people(votes: VoteTable) -> list[Sums]:
    return [
        person_sums(name, matrix, range(len(votes.people)), reason)
        for name, matrix, reason in (
            ("others", c.with_others(votes), "nobody else voted on their items"),
            (
                "majority",
                c.with_majority(votes),
                "the others have no majority on any of their items",
            ),
        )
    ]


def person_sums(name: str, matrix: Any, people: Sequence[Key], nothing: str) -> Sums:
    """Return ratios of two sums per person, ``[I, 2 P]``, named ``(name, person)``."""
    totals = np.asarray(matrix.sum(axis=0)).ravel().reshape(-1, 2)
    counts = np.asarray((matrix > 0).sum(axis=0)).ravel()[1::2].tolist()
    values = [
        Value(float(part / whole)) if whole > 0 else Value(None, nothing) for part, whole in totals
    ]
    names = [(name, person) for person in people]
    return Sums(matrix, (Statistic(names, values, counts, c.ratio_of),))


def _with_two(votes: VoteTable) -> int:
    return int((votes.votes_per_item >= 2).sum())


def _majorities(votes: VoteTable) -> dict[str, int]:
    codes = votes.majority_codes[votes.votes_per_item > 0]
    counts = {kind: int((codes == code).sum()) for code, kind in enumerate(votes.categories)}
    return counts | {NO_MAJORITY: int((codes < 0).sum())}
