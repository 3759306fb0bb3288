"""From votes to preferences: one row a pair, with the votes kept beside it.

A row of the dataset has, besides ``prompt``, ``chosen`` and ``rejected``:

================  ============================================================================
column            meaning
================  ============================================================================
``pair_id``       the pair
``chosen_side``   which of its responses was chosen: ``a`` or ``b``
``votes``         how many people voted, abstentions included
``tally``         how many of them chose ``a``, ``b``, ``tie`` and ``both_bad``
``vote_share``    share of the votes for either response that are for the chosen one; null where
                  nobody voted for either
``decided_by``    ``votes``, or ``adjudication`` where a senior labeller decided
``voted``         what the votes alone come to, by the method; null where they come to nothing
``confidence``    the method's probability of the chosen response, from the votes alone; null
                  where nobody voted
``soft_label``    probability that the chosen response is the better, to train on: see `soft_label`
================  ============================================================================

Pairs that prefer neither response (a tie, two bad ones, no majority) can be no preference. They lie
in ``undecided.jsonl`` with both responses, what they were decided as, and why, and are counted in
``dropped.jsonl`` like everything that was left out.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotation.aggregation.consensus import Consensus, Outcome, reach_consensus
from annotation.aggregation.votes import (
    Ballot,
    counted_votes,
    plurality,
    read_gold,
    sort_labels,
    tally,
)
from annotation.config import AggregationConfig
from annotation.sources.simulated_labels import TRUTH_FILE
from plumbline.data.labels import Choice, Label, read_labels
from plumbline.data.records import Row, is_held_out, read_dataset, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import derive

UNDECIDED = "undecided.jsonl"
_WHY_UNDECIDED: Mapping[Choice | None, str] = {
    "tie": "is a tie, which prefers neither response",
    "both_bad": "has two bad responses, of which neither is preferred",
    None: "has no majority for either response",
}


@dataclass(frozen=True)
class Verdict:
    """What became of a pair, and by whom."""

    choice: Choice | None
    decided_by: Literal["votes", "adjudication"]
    reason: str | None
    """Why it is no preference, or None where it is one."""


@stage("preferences")
def aggregate_labels(
    stage: Stage, *, config: AggregationConfig, pairs: Artifact, labels: Artifact, data_seed: int
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` from labels."""
    # 1. Labels by what they are for, and the outcome of the votes.
    rows = read_dataset(pairs.path, "train")
    everything = read_labels(labels.path)
    ballot = sort_labels(everything)
    consensus = consensus_of(
        ballot, config, {row["pair_id"] for row in rows}, read_gold(labels.path), data_seed
    )
    if consensus.note is not None:
        stage.say(consensus.note)

    # 2. A preference of each pair that has one; the others are kept apart.
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    undecided, dropped = [], Dropped()
    for number, row in enumerate(rows, 1):
        pair_id = row["pair_id"]
        votes, found = ballot.votes.get(pair_id, []), consensus.outcomes.get(pair_id)
        verdict = verdict_on(pair_id, ballot, found, config)
        if verdict.reason is None and verdict.choice in ("a", "b"):
            held_out = is_held_out(row["prompt"], config.held_out_share, data_seed)
            splits["test" if held_out else "train"].append(
                preference(
                    row,
                    verdict.choice,
                    votes,
                    found=found,
                    decided_by=verdict.decided_by,
                    prior_votes=config.prior_votes,
                )
            )
        else:
            dropped.add(pairs.id, number, str(verdict.reason), pair_id)
            undecided.append(undecided_row(row, verdict, votes, found))
    _add_strangers(dropped, labels.id, everything, {row["pair_id"] for row in rows})
    if not splits["train"] or not splits["test"]:
        raise DataError(
            f"{len(rows)} labelled pairs leave {len(splits['train'])} to train on and "
            f"{len(splits['test'])} held out; both need some. Left out: {dropped.reasons()}."
        )

    # 3. The dataset, and what is known of it.
    how = "Majority" if consensus.method == "majority" else f"Consensus ({consensus.method})"
    counts: dict[str, float | None] = dict(
        write_dataset(
            stage.folder,
            splits,
            kind="preference",
            title="Preferences",
            description=f"{how} of the votes in {labels.id}, split by prompt.",
            dropped=dropped,
        )
    )
    _write_lines(stage.folder / UNDECIDED, undecided)
    truth_file = labels.path / TRUTH_FILE
    if truth_file.exists():
        counts |= best_possible(splits["test"], read_json(truth_file))
    return counts | figures([*splits["train"], *splits["test"]], undecided, ballot)


def consensus_of(
    ballot: Ballot,
    config: AggregationConfig,
    pair_ids: set[str],
    answers: Mapping[str, Choice],
    data_seed: int,
) -> Consensus:
    """Return what the votes on these pairs come to; adjudications have no part in it."""
    cast = [votes for pair_id, votes in ballot.votes.items() if pair_id in pair_ids]
    votes = counted_votes(itertools.chain(*cast), config)
    if not votes and ballot.decisions:  # everything was decided by a senior labeller
        return Consensus({}, config.method)
    return reach_consensus(
        votes,
        config.method,
        gold=counted_votes(ballot.gold, config),
        answers=answers,
        seed=derive(data_seed, "consensus"),
    )


def verdict_on(
    pair_id: str, ballot: Ballot, found: Outcome | None, config: AggregationConfig
) -> Verdict:
    """Say what becomes of a pair: as adjudicated, where it was, and otherwise as voted."""
    decisions, votes = ballot.decisions.get(pair_id), ballot.votes.get(pair_id, [])
    if decisions is not None:
        choice = plurality(label.choice for label in decisions)
        reason = (
            "was adjudicated in different ways" if choice is None else _WHY_UNDECIDED.get(choice)
        )
        return Verdict(choice, "adjudication", reason)
    choice = found.choice if found is not None else None
    if not votes and any(label.pair_id == pair_id for label in ballot.gold):
        return Verdict(None, "votes", "is a gold item, on which nobody voted")
    if len(votes) < config.min_votes:
        reason = f"has fewer than min_votes ({config.min_votes}) votes"
        return Verdict(choice, "votes", reason)
    return Verdict(choice, "votes", _WHY_UNDECIDED.get(choice))


def preference(
    row: Row,
    outcome: Literal["a", "b"],
    labels: Sequence[Label],
    *,
    found: Outcome | None = None,
    decided_by: Literal["votes", "adjudication"] = "votes",
    prior_votes: float = 0.0,
) -> Row:
    """Return a preference row, with its votes; see the module's docstring for its columns.

    ``labels`` are the votes on the pair and ``found`` what they come to; without it they come to
    their shares.
    """
    other: Choice = "b" if outcome == "a" else "a"
    counts = tally(labels)
    sided = counts["a"] + counts["b"]
    if found is None and labels:
        found = Outcome(
            plurality(label.choice for label in labels),
            {choice: count / len(labels) for choice, count in counts.items() if count},
        )
    probabilities = found.probabilities if found is not None else {}
    return {
        "pair_id": row["pair_id"],
        "prompt": row["prompt"],
        "chosen": row[outcome],
        "rejected": row[other],
        "chosen_side": outcome,
        "votes": len(labels),
        "vote_share": counts[outcome] / sided if sided else None,
        "tally": counts,
        "decided_by": decided_by,
        "voted": found.choice if found is not None else None,
        "confidence": probabilities.get(outcome, 0.0) if found is not None else None,
        "soft_label": 1.0
        if decided_by == "adjudication"
        else soft_label(probabilities, outcome, sided, prior_votes),
    }


def soft_label(
    probabilities: Mapping[Choice, float],
    outcome: Literal["a", "b"],
    votes: int,
    prior_votes: float = 0.0,
) -> float:
    """Return the probability that the chosen response is the better of the two, to train on.

    It is p = P(chosen) / (P(a) + P(b)) by the method, for a majority the share of votes, drawn
    towards one half by k ``prior_votes`` a side: (n p + k) / (n + 2 k), with n ``votes`` for either
    response. An adjudicated pair has 1: the decision is taken as certain.
    """
    sides = {side: probabilities.get(side, 0.0) for side in ("a", "b")}
    p = sides[outcome] / (sides["a"] + sides["b"])
    return (votes * p + prior_votes) / (votes + 2 * prior_votes) if prior_votes else p


def undecided_row(
    row: Row, verdict: Verdict, labels: Sequence[Label], found: Outcome | None
) -> Row:
    """Return a pair that is no preference, with its votes and why."""
    return {
        "pair_id": row["pair_id"],
        "reason": verdict.reason,
        "outcome": verdict.choice,
        "decided_by": verdict.decided_by,
        "votes": len(labels),
        "tally": tally(labels),
        "voted": found.choice if found is not None else None,
        "confidence": found.confidence if found is not None else None,
        "prompt": row["prompt"],
        "a": row["a"],
        "b": row["b"],
    }


def figures(
    decided: Sequence[Row], undecided: Sequence[Row], ballot: Ballot
) -> dict[str, float | None]:
    """Return what is worth knowing of all pairs together."""
    adjudicated = [row for row in [*decided, *undecided] if row["decided_by"] == "adjudication"]
    outcomes = Counter(row["outcome"] for row in undecided)
    sure = [row["confidence"] for row in decided if row["confidence"] is not None]
    return {
        "ties": float(outcomes["tie"]),
        "both_bad": float(outcomes["both_bad"]),
        "adjudicated": float(len(adjudicated)),
        "overruled": float(
            sum(
                row["voted"] not in (None, row.get("chosen_side", row.get("outcome")))
                for row in adjudicated
            )
        ),
        "mean_confidence": sum(sure) / len(sure) if sure else None,
        "superseded_votes": float(ballot.superseded),
        "repeats": float(ballot.repeats),
    }


def best_possible(rows: Sequence[Row], truth: Mapping[str, Any]) -> dict[str, float]:
    """Return how often the best possible judge agrees with these votes.

    That judge knows what each labeller would think of each pair, though not who was asked, and
    names the likelier outcome. ``best_possible`` is how often it is right on these very votes,
    ``best_possible_expected`` how often it would be on new votes on the same pairs.
    """
    right = [(truth[row["pair_id"]] > 0.5) == (row["chosen_side"] == "a") for row in rows]
    expected = [max(truth[row["pair_id"]], 1 - truth[row["pair_id"]]) for row in rows]
    return {
        "best_possible": sum(right) / len(right),
        "best_possible_expected": sum(expected) / len(expected),
    }


def _add_strangers(
    dropped: Dropped, origin: str, labels: Sequence[Label], pair_ids: set[str]
) -> None:
    """Count labels on pairs that are not here; gold items may well come from elsewhere."""
    for number, label in enumerate(labels, 1):
        if label.pair_id not in pair_ids and label.purpose != "gold":
            reason = "is a label on a pair that is not among the pairs"
            dropped.add(origin, number, reason, label.pair_id)


def _write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
