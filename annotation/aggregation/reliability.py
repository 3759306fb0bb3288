"""How reliable each person is: by their gold items if they had any, else by the others' votes.

A person's accuracy q is estimated by Laplace's rule of succession, (right + 1) / (items + 2), from
the first of these that there is:

1. gold items, whose answers are known;
2. pairs on which the votes of the others have a majority: how often the person agrees with it.
   Since the others err too, this is lower than the accuracy, but ranks people much the same;
3. everybody who has 1 or 2, pooled.

A vote has the weight log(q (K - 1) / (1 - q)) with K choices. It is the log-likelihood ratio of a
person who is right with probability q and otherwise picks each other choice equally often (Nitzan
and Paroush, 1982, for K = 2, where it is the log-odds of q). The weight of somebody at or below
chance (q <= 1 / K) is zero. It is never negative: a person who is wrong that often has most likely
understood the question differently.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from annotation.aggregation.counted_vote import CountedVote
from plumbline.data.labels import Choice

Basis = Literal["gold", "others", "everybody"]


class Score(NamedTuple):
    """How many items somebody was right on, out of how many."""

    right: int
    items: int

    @property
    def share(self) -> float:
        """The share that was right. Raises `ZeroDivisionError` where there was no item."""
        return self.right / self.items


class Reliability(NamedTuple):
    """How reliable a person is, and how that is known."""

    accuracy: float
    """Smoothed, so never 0 or 1."""
    score: Score
    basis: Basis


def gold_scores(gold: Sequence[CountedVote], answers: Mapping[str, Choice]) -> dict[str, Score]:
    """Return each person's score on the gold items whose answers are known."""
    marks: dict[str, list[bool]] = defaultdict(list)
    for vote in gold:
        if vote.pair_id in answers:
            marks[vote.person].append(vote.choice == answers[vote.pair_id])
    return {person: Score(sum(right), len(right)) for person, right in marks.items()}


def agreement_with_others(votes: Sequence[CountedVote]) -> dict[str, Score]:
    """Return how often each person agrees with the majority of the others on a pair.

    Pairs on which the others have no majority, or where there is nobody else, are no evidence.
    """
    counts: dict[str, Counter[Choice]] = defaultdict(Counter)
    for vote in votes:
        counts[vote.pair_id][vote.choice] += 1
    marks: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        others = counts[vote.pair_id].copy()
        others[vote.choice] -= 1
        leading = others.most_common(2)
        if leading[0][1] > 0 and (len(leading) == 1 or leading[0][1] > leading[1][1]):
            marks[vote.person].append(vote.choice == leading[0][0])
    return {person: Score(sum(right), len(right)) for person, right in marks.items()}


def reliabilities(
    votes: Sequence[CountedVote], gold: Sequence[CountedVote], answers: Mapping[str, Choice]
) -> dict[str, Reliability]:
    """Return the reliability of everybody who voted."""
    by_gold, by_others = gold_scores(gold, answers), agreement_with_others(votes)
    people = sorted({vote.person for vote in votes})
    by_person: dict[str, Reliability] = {}
    for person in people:
        basis: Basis = "gold" if person in by_gold else "others"
        score = by_gold.get(person) or by_others.get(person)
        if score is not None:
            by_person[person] = Reliability(laplace(score), score, basis)
    everybody = Score(
        sum(reliability.score.right for reliability in by_person.values()),
        sum(reliability.score.items for reliability in by_person.values()),
    )
    pooled = Reliability(laplace(everybody), Score(0, 0), "everybody")
    return {person: by_person.get(person, pooled) for person in people}


def laplace(score: Score) -> float:
    """Return the rule of succession's estimate: (right + 1) / (items + 2)."""
    return (score.right + 1) / (score.items + 2)


def vote_weight(accuracy: float, choices: int) -> float:
    """Return the weight of a vote, never negative; see the module's docstring.

    ``accuracy`` lies strictly between 0 and 1, and there are at least two ``choices``.
    """
    if not 0 < accuracy < 1 or choices < 2:
        raise ValueError(f"accuracy {accuracy} of {choices} choices has no weight")
    return max(0.0, math.log(accuracy * (choices - 1) / (1 - accuracy)))
