"""From votes to one outcome per pair, by any method of the table.

The outcome is the choice with the largest probability; where two share it, there is no outcome.
All methods but the majority learn about people by comparing them. Where there is nothing to
compare (one person, one answer, no pair with two votes) the result is the majority, and says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from annotation.aggregation.counted_vote import CountedVote
from annotation.aggregation.methods import METHODS, Evidence
from plumbline.data.labels import Choice
from plumbline.errors import DataError

_SAME = 1e-9
"""Probabilities closer than this are equal: EM leaves no smaller difference that means anything."""


class Outcome(NamedTuple):
    """The outcome of the votes on a pair."""

    choice: Choice | None
    """The most probable choice, or None where two are equally probable."""
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
    method: str
    """The method that was used."""
    note: str | None = None
    """Why it is not the method that was asked for."""


def reach_consensus(
    votes: Sequence[CountedVote],
    method: str,
    *,
    gold: Sequence[CountedVote] = (),
    answers: Mapping[str, Choice] | None = None,
    seed: int = 0,
) -> Consensus:
    """Return one outcome per pair.

    ``gold`` are people's answers to gold items, from which some methods learn about people, and
    ``answers`` the known ones. Only methods that draw random numbers use ``seed``. The order of
    the votes does not matter. Raises `DataError` where there is no vote.
    """
    if not votes:
        raise DataError(
            "There is no vote to count: every label is an abstention, a gold item, a repeat or an "
            "adjudication. Label some pairs first, or set ties to 'outcome'."
        )
    chosen = METHODS[method]
    known_gold = [vote for vote in gold if answers and vote.pair_id in answers]
    evidence = Evidence(votes, known_gold if chosen.learns_from_gold else [], answers or {}, seed)
    note = None
    if chosen.compares_people:
        reason = nothing_to_learn(votes, evidence.gold)
        if reason is not None:
            note = f"majority instead of {method}: {reason}"
            chosen = METHODS["majority"]
    outcomes = {pair_id: outcome(p) for pair_id, p in chosen.probabilities(evidence).items()}
    return Consensus(outcomes, chosen.name, note)


def nothing_to_learn(votes: Sequence[CountedVote], gold: Sequence[CountedVote]) -> str | None:
    """Return why votes and gold items say nothing about people, or None where they do."""
    if len({vote.choice for vote in votes}) < 2:
        return "all votes are the same"
    if gold:
        return None
    if len({vote.person for vote in votes}) < 2:
        return "only one person voted"
    if max(Counter(vote.pair_id for vote in votes).values()) < 2:
        return "no pair has two votes"
    return None


def outcome(probabilities: Mapping[Choice, float]) -> Outcome:
    """Return the outcome that probabilities give."""
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    tied = len(ordered) > 1 and ordered[0][1] - ordered[1][1] < _SAME
    return Outcome(None if tied else ordered[0][0], probabilities)


def entropy(probabilities: Iterable[float]) -> float:
    """Return the entropy of a distribution, in bits."""
    return -sum(p * math.log2(p) for p in probabilities if p > 0)
