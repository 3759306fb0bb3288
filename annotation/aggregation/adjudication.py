"""Which pairs a senior labeller should see, for which reasons, and in which order.

A pair is queued for one or more of these reasons, unless it was adjudicated already:

==================  ==========================================================================
reason              when
==================  ==========================================================================
``disagreement``    at least two votes, and the most frequent answer has too small a share of
                    them, or their entropy is too large, or they differ and two answers tie
``low_confidence``  the method's probability of the outcome is too small
``gold_failure``    the outcome would change without the people who fail their gold items
``flag:unsafe``     somebody set this flag (any that `AdjudicationConfig.flags` names)
==================  ==========================================================================

The priority is 2 if a flag was set, plus 1 if the outcome depends on unreliable people, plus the
uncertainty of the outcome: the entropy of its probabilities as a share of the largest possible, in
[0, 1]. So harm comes first, then outcomes that may be wrong for a known reason, then open ones, the
most uncertain first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from annotation.aggregation.aggregate import consensus_of
from annotation.aggregation.config import AdjudicationConfig, AggregationConfig
from annotation.aggregation.consensus import Consensus, Outcome, entropy
from annotation.aggregation.methods import METHODS
from annotation.aggregation.reliability import gold_scores
from annotation.aggregation.votes import Ballot, counted_votes, person_of, sort_labels
from annotation.gold_answers import read_gold
from plumbline.data.labels import Choice, Label, read_labels
from plumbline.data.records import Row, read_dataset, write_dataset
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage

_FLAGGED, _UNRELIABLE = 2.0, 1.0


class Case(NamedTuple):
    """One pair of the queue."""

    pair_id: str
    reasons: tuple[str, ...]
    priority: float
    """In [0, 4]; pairs with a larger one come earlier."""


@stage("pairs")
def queue_adjudication(
    stage: Stage,
    *,
    config: AdjudicationConfig,
    aggregation: AggregationConfig,
    pairs: Artifact,
    labels: Artifact,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Make a dataset of pairs for a senior labeller, the most valuable first.

    It has the columns of the pairs, and ``reasons`` and ``priority``.
    """
    rows = {row["pair_id"]: row for row in read_dataset(pairs.path, "train")}
    on_these_pairs = [
        label
        for label in read_labels(labels.path)
        if label.pair_id in rows or label.purpose == "gold"  # gold items may come from elsewhere
    ]
    answers = read_gold(labels.path)
    doubtful = adjudication_queue(
        on_these_pairs, config, aggregation, answers=answers, seed=data_seed
    )
    cases = [case for case in doubtful if case.pair_id in rows]
    queued = cases[: config.budget]
    queue: list[Row] = [
        {**rows[case.pair_id], "reasons": list(case.reasons), "priority": case.priority}
        for case in queued
    ]
    write_dataset(
        stage.folder,
        {"train": queue},
        kind="prompts",
        title="Pairs for adjudication",
        description=f"Pairs of {pairs.id} on which the labels in {labels.id} leave a doubt.",
    )
    if len(cases) > len(queued):
        stage.say(f"{len(cases) - len(queued)} more pairs are beyond the budget {config.budget}")
    reasons = Counter(reason.split(":")[0] for case in cases for reason in case.reasons)
    return {
        "queued": float(len(queued)),
        "beyond_budget": float(len(cases) - len(queued)),
        "pairs": float(len(rows)),
        **{
            reason: float(reasons[reason])
            for reason in ("disagreement", "low_confidence", "gold_failure", "flag")
        },
    }


def adjudication_queue(
    labels: Sequence[Label],
    config: AdjudicationConfig,
    aggregation: AggregationConfig,
    *,
    answers: Mapping[str, Choice] | None = None,
    seed: int = 0,
) -> list[Case]:
    """Return the pairs that need a senior labeller, by priority.

    ``answers`` are those of the gold items. Equal priorities are ordered by the pair's id.
    """
    ballot, known_answers = sort_labels(labels), answers or {}
    everybody = _consensus(ballot, aggregation, known_answers, seed)
    unreliable = unreliable_people(ballot, aggregation, config, known_answers)
    dependent = pairs_depending_on(unreliable, ballot, everybody, aggregation, known_answers, seed)
    flagged = flags_set(labels, config.flags)
    cases = []
    for pair_id in {**ballot.votes, **flagged}:
        if pair_id in ballot.decisions:
            continue
        outcome = everybody.outcomes.get(pair_id)
        votes = ballot.votes.get(pair_id, [])
        reasons = doubts(votes, outcome, everybody, config, aggregation)
        if pair_id in dependent:
            reasons.append("gold_failure")
        reasons += [f"flag:{flag}" for flag in flagged.get(pair_id, ())]
        if reasons:
            priority = (
                _FLAGGED * (pair_id in flagged)
                + _UNRELIABLE * (pair_id in dependent)
                + (outcome.uncertainty if outcome is not None else 1.0)
            )
            cases.append(Case(pair_id, tuple(reasons), priority))
    return sorted(cases, key=lambda case: (-case.priority, case.pair_id))


def doubts(
    labels: Sequence[Label],
    outcome: Outcome | None,
    consensus: Consensus,
    config: AdjudicationConfig,
    aggregation: AggregationConfig,
) -> list[str]:
    """Return what the votes on a pair leave open: ``disagreement``, ``low_confidence`` or both."""
    reasons = []
    votes = counted_votes(labels, aggregation)
    if len(votes) > 1:
        shares = [n / len(votes) for n in Counter(vote.choice for vote in votes).values()]
        open_ = outcome is None or outcome.choice is None
        split = max(shares) < config.min_share or (open_ and len(shares) > 1)
        if split or (config.max_entropy is not None and entropy(shares) > config.max_entropy):
            reasons.append("disagreement")
    if (
        not METHODS[consensus.method].counts_alone
        and outcome is not None
        and outcome.confidence < config.min_confidence
    ):
        reasons.append("low_confidence")
    return reasons


def unreliable_people(
    ballot: Ballot,
    aggregation: AggregationConfig,
    config: AdjudicationConfig,
    answers: Mapping[str, Choice],
) -> set[str]:
    """Return the people who fail too many of their gold items."""
    scores = gold_scores(counted_votes(ballot.gold, aggregation), answers)
    return {
        person
        for person, score in scores.items()
        if score.items >= config.min_gold_items and score.share < config.min_gold_accuracy
    }


def pairs_depending_on(
    people: set[str],
    ballot: Ballot,
    consensus: Consensus,
    aggregation: AggregationConfig,
    answers: Mapping[str, Choice],
    seed: int,
) -> set[str]:
    """Return the pairs on which these people voted and whose outcome changes without them.

    A pair on which nobody else voted is one of them.
    """
    voted_on = {
        pair_id
        for pair_id, votes in ballot.votes.items()
        if any(person_of(vote) in people for vote in votes)
    }
    if not voted_on:
        return set()
    without = Ballot(
        votes={
            pair_id: [vote for vote in votes if person_of(vote) not in people]
            for pair_id, votes in ballot.votes.items()
        },
        gold=ballot.gold,
    )
    others = _consensus(without, aggregation, answers, seed)
    return {
        pair_id
        for pair_id in voted_on
        if _choice(consensus.outcomes.get(pair_id)) != _choice(others.outcomes.get(pair_id))
    }


def flags_set(labels: Sequence[Label], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the named flags that anybody set, by pair, as they are named."""
    named = {_plain(name): name for name in names}
    flagged: dict[str, set[str]] = {}
    for label in labels:
        for flag in label.flags:
            if _plain(flag) in named:
                flagged.setdefault(label.pair_id, set()).add(named[_plain(flag)])
    return {pair_id: tuple(sorted(flags)) for pair_id, flags in flagged.items()}


def _consensus(
    ballot: Ballot, aggregation: AggregationConfig, answers: Mapping[str, Choice], seed: int
) -> Consensus:
    if not any(counted_votes(votes, aggregation) for votes in ballot.votes.values()):
        return Consensus({}, aggregation.method)
    return consensus_of(ballot, aggregation, set(ballot.votes), answers, seed)


def _choice(outcome: Outcome | None) -> Choice | None:
    return outcome.choice if outcome is not None else None


def _plain(flag: str) -> str:
    return flag.strip().lower().replace("_", " ").replace("-", " ")
