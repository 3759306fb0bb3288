"""The table of aggregation methods; a user's own function is one more row.

================  =============================================================================
method            probability of each choice
================  =============================================================================
``majority``      its share of the votes
``weighted``      softmax of the summed weights of its voters; see `.reliability`
``dawid_skene``   posterior with a confusion matrix per person (Dawid and Skene, 1979)
``glad``          posterior with an ability per person and a difficulty per pair
                  (Whitehill et al., 2009)
``mace``          posterior with a share of careless answers per person (Hovy et al., 2013)
================  =============================================================================
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from annotation.aggregation.counted_vote import CountedVote
from annotation.aggregation.crowd_models import dawid_skene, glad, mace
from annotation.aggregation.reliability import reliabilities, vote_weight
from plumbline.data.labels import CHOICES, Choice
from plumbline.tables import Table

Probabilities = dict[str, dict[Choice, float]]
"""The probability of each choice, by pair; of each pair they sum to 1."""


class Evidence(NamedTuple):
    """What a method decides by."""

    votes: Sequence[CountedVote]
    gold: Sequence[CountedVote]
    """People's answers to gold items; empty for methods that do not learn from them."""
    answers: Mapping[str, Choice]
    """The known answers of gold items, by pair."""
    seed: int


@dataclass(frozen=True)
class AggregationMethod:
    """One row of the table of methods."""

    name: str
    probabilities: Callable[[Evidence], Probabilities]
    compares_people: bool = True
    """Whether it learns about people from their votes. Where there is nothing to learn from, the
    majority takes its place."""
    learns_from_gold: bool = False
    """Whether it also learns about people from their gold items."""
    counts_alone: bool = False
    """Whether its confidence is the share of the votes and says nothing beyond it."""


def majority_shares(evidence: Evidence) -> Probabilities:
    """Return each choice's share of the votes."""
    chosen = choices_in(evidence.votes)
    shares: Probabilities = {}
    for pair_id, cast in by_pair(evidence.votes).items():
        counts = Counter(vote.choice for vote in cast)
        shares[pair_id] = {choice: counts[choice] / len(cast) for choice in chosen}
    return shares


def weighted_votes(evidence: Evidence) -> Probabilities:
    """Return softmax(summed weights of each choice's voters).

    With equal chances before the vote this is the posterior when each person is right with the
    estimated accuracy, raised to chance where it is below, and votes are independent.
    """
    chosen = choices_in(evidence.votes)
    people = reliabilities(evidence.votes, evidence.gold, evidence.answers)
    weights = {
        person: vote_weight(reliability.accuracy, len(chosen))
        for person, reliability in people.items()
    }
    probabilities: Probabilities = {}
    for pair_id, cast in by_pair(evidence.votes).items():
        # In order of the person: floats added in another order differ in the last digit.
        ordered = sorted(cast, key=lambda vote: vote.person)
        sums = {
            choice: sum(weights[vote.person] for vote in ordered if vote.choice == choice)
            for choice in chosen
        }
        largest = max(sums.values())
        powers = {choice: math.exp(total - largest) for choice, total in sums.items()}
        whole = sum(powers.values())
        probabilities[pair_id] = {choice: power / whole for choice, power in powers.items()}
    return probabilities


def _own(path: str, function: Callable[..., Any]) -> AggregationMethod:
    return AggregationMethod(path, function, compares_people=False, learns_from_gold=True)


METHODS: Table[AggregationMethod] = Table(
    "aggregation method",
    [
        AggregationMethod("majority", majority_shares, compares_people=False, counts_alone=True),
        AggregationMethod("weighted", weighted_votes, learns_from_gold=True),
        AggregationMethod(
            "dawid_skene",
            lambda e: dawid_skene(e.votes, e.gold, e.answers),
            learns_from_gold=True,
        ),
        AggregationMethod("glad", lambda e: glad(e.votes)),
        AggregationMethod("mace", lambda e: mace(e.votes, e.seed)),
    ],
    from_function=_own,
)


def choices_in(votes: Sequence[CountedVote]) -> list[Choice]:
    """Return the choices that anybody made, in their usual order."""
    chosen = {vote.choice for vote in votes}
    return [choice for choice in CHOICES if choice in chosen]


def by_pair(votes: Sequence[CountedVote]) -> dict[str, list[CountedVote]]:
    """Return the votes by the pair that they are on."""
    pairs: dict[str, list[CountedVote]] = defaultdict(list)
    for vote in votes:
        pairs[vote.pair_id].append(vote)
    return pairs
