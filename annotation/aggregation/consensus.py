"""From votes to one outcome a pair: majority, weighted majority, or a model of the people.

===============  ==============================================================================
method           probability of each choice
===============  ==============================================================================
``majority``     its share of the votes
``weighted``     softmax of the summed weights of its voters; see `.reliability`
``dawid_skene``  posterior with a confusion matrix for each person (Dawid and Skene, 1979)
``glad``         posterior with an ability for each person and a difficulty for each pair
                 (Whitehill et al., 2009)
``mace``         posterior with a share of careless answers for each person (Hovy et al., 2013)
===============  ==============================================================================

The outcome is the choice with the largest probability; where two share it, there is no outcome.
All but the majority learn about people by comparing them. Where there is nothing to compare (one
person, one answer, no pair with two votes) the result is the majority, and says so.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from annotation.aggregation.crowd_models import posteriors
from annotation.aggregation.reliability import Reliability, reliabilities, vote_weight
from annotation.aggregation.votes import CountedVote
from annotation.config import Method
from plumbline.data.labels import CHOICES, Choice
from plumbline.errors import DataError

LEARN_FROM_GOLD: tuple[Method, ...] = ("weighted", "dawid_skene")
"""Methods that also learn about people from gold items; crowd-kit's others take no answers."""
_SAME = 1e-9
"""Probabilities closer than this are equal: EM leaves no smaller difference that means anything."""


class Outcome(NamedTuple):
    """What the votes on a pair come to."""

    choice: Choice | None
    """The likeliest, or None where two are equally likely."""
    probabilities: Mapping[Choice, float]
    """Of every choice that anybody made on any pair; they sum to 1."""

    @property
    def confidence(self) -> float:
        """The largest probability."""
        return max(self.probabilities.values())

    @property
    def uncertainty(self) -> float:
        """Entropy of the probabilities as a share of the largest possible: 0 is certain."""
        if len(self.probabilities) < 2:
            return 0.0
        return entropy(self.probabilities.values()) / math.log2(len(self.probabilities))


@dataclass(frozen=True)
class Consensus:
    """The outcomes of all pairs that have a counted vote."""

    outcomes: Mapping[str, Outcome]
    method: Method
    """The method that was used in fact."""
    note: str | None = None
    """Why it is another than was asked for."""
    reliability: Mapping[str, Reliability] = field(default_factory=dict)
    """By person, where the method estimates it."""


def reach_consensus(
    votes: Sequence[CountedVote],
    method: Method,
    *,
    gold: Sequence[CountedVote] = (),
    answers: Mapping[str, Choice] | None = None,
    seed: int = 0,
) -> Consensus:
    """Bring votes to one outcome a pair.

    ``gold`` are people's answers to gold items, from which some methods learn about people, and
    ``answers`` the known ones. ``seed`` matters to ``mace`` alone. The order of the
    votes does not matter. Raises `DataError` where there is no vote.
    """
    if not votes:
        raise DataError(
            "There is no vote to count: every label is an abstention, a gold item, a repeat or an "
            "adjudication. Label some pairs first, or let ties be an outcome."
        )
    if method == "majority":
        return Consensus(majority_outcomes(votes), method)
    answers = answers or {}
    learns = method in LEARN_FROM_GOLD
    known = [vote for vote in gold if vote.pair_id in answers] if learns else []
    reason = nothing_to_learn(votes, known)
    if reason is not None:
        note = f"majority instead of {method}: {reason}"
        return Consensus(majority_outcomes(votes), "majority", note)
    if method == "weighted":
        people = reliabilities(votes, known, answers)
        return Consensus(weighted_outcomes(votes, people), method, reliability=people)
    found = posteriors(votes, method, gold=known, answers=answers, seed=seed)
    return Consensus({pair_id: outcome(p) for pair_id, p in found.items()}, method)


def nothing_to_learn(votes: Sequence[CountedVote], gold: Sequence[CountedVote]) -> str | None:
    """Return why the votes and gold items tell nothing about people, or None where they do."""
    if len({vote.choice for vote in votes}) < 2:
        return "all votes are the same"
    if gold:
        return None
    if len({vote.person for vote in votes}) < 2:
        return "only one person voted"
    if max(Counter(vote.pair_id for vote in votes).values()) < 2:
        return "no pair has two votes"
    return None


def majority_outcomes(votes: Sequence[CountedVote]) -> dict[str, Outcome]:
    """Return outcomes whose probabilities are shares of the votes."""
    made = _choices_made(votes)
    found = {}
    for pair_id, cast in _by_pair(votes).items():
        counts = Counter(vote.choice for vote in cast)
        found[pair_id] = outcome({choice: counts[choice] / len(cast) for choice in made})
    return found


def weighted_outcomes(
    votes: Sequence[CountedVote], people: Mapping[str, Reliability]
) -> dict[str, Outcome]:
    """Return outcomes whose probabilities are softmax(summed weights of each choice's voters).

    With equal chances before the vote this is the posterior when each person is right with the
    given accuracy, raised to chance where it is below, and votes are independent.
    """
    made = _choices_made(votes)
    weights = {person: vote_weight(one.accuracy, len(made)) for person, one in people.items()}
    found = {}
    for pair_id, cast in _by_pair(votes).items():
        # In order of the person, since adding floats in another order gives another last digit.
        cast = sorted(cast, key=lambda vote: vote.person)
        sums = {
            choice: sum(weights[vote.person] for vote in cast if vote.choice == choice)
            for choice in made
        }
        largest = max(sums.values())
        powers = {choice: math.exp(total - largest) for choice, total in sums.items()}
        whole = sum(powers.values())
        found[pair_id] = outcome({choice: power / whole for choice, power in powers.items()})
    return found


def outcome(probabilities: Mapping[Choice, float]) -> Outcome:
    """Return the outcome that probabilities amount to."""
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    tied = len(ordered) > 1 and ordered[0][1] - ordered[1][1] < _SAME
    return Outcome(None if tied else ordered[0][0], probabilities)


def entropy(probabilities: Iterable[float]) -> float:
    """Return the entropy of a distribution in bits."""
    return -sum(p * math.log2(p) for p in probabilities if p > 0)


def _choices_made(votes: Sequence[CountedVote]) -> list[Choice]:
    made = {vote.choice for vote in votes}
    return [choice for choice in CHOICES if choice in made]


def _by_pair(votes: Sequence[CountedVote]) -> dict[str, list[CountedVote]]:
    pairs: dict[str, list[CountedVote]] = defaultdict(list)
    for vote in votes:
        pairs[vote.pair_id].append(vote)
    return pairs
