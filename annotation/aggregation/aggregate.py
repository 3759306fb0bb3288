"""From votes to preferences: one row per pair, with its votes.

A row of the dataset has, besides ``prompt``, ``chosen`` and ``rejected``:

================  ============================================================================
column            meaning
================  ============================================================================
``pair_id``       the pair
``chosen_side``   which of its responses was chosen: ``a`` or ``b``
``votes``         how many people voted, abstentions included
``tally``         how many of them chose ``a``, ``b``, ``tie`` and ``both_bad``
``vote_share``    share of the chosen response among the votes for either one; null where nobody
                  voted for either
``decided_by``    ``votes``, or ``adjudication`` where a senior labeller decided
``voted``         the outcome of the votes alone, by the method; null where there is none
``confidence``    the method's probability of the chosen response, from the votes alone; null
                  where nobody voted
``soft_label``    probability that the chosen response is better, to train on: see `soft_label`
``margin``        by how much it is better, where votes say so: see `graded_margin`
``aspect_NAME``   share of the choices on an aspect, where it was asked: see `aspect_shares`
================  ============================================================================

Pairs that prefer neither response (a tie, two bad ones, no majority) become no preference. They are
written to ``undecided.jsonl`` with both responses, the outcome and the reason, and counted in
``dropped.jsonl`` like everything that was left out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from annotation.aggregation.config import AggregationConfig
from annotation.aggregation.consensus import Consensus, Outcome, reach_consensus
from annotation.aggregation.methods import METHODS
from annotation.aggregation.votes import Ballot, counted_votes, plurality, sort_labels, tally
from annotation.gold_answers import read_gold
from annotation.sources.simulated_labels import TRUTH_FILE
from annotation.vote_table import in_natural_order, look_alikes
from plumbline.data.labels import Choice, Label, read_labels
from plumbline.data.records import Row, as_json_lines, is_held_out, read_dataset, write_dataset
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
    """The decision on a pair, and who made it."""

    choice: Choice | None
    decided_by: Literal["votes", "adjudication"]
    reason: str | None
    """Why there is no preference, or None where there is one."""


@stage("preferences")
def aggregate_labels(
    stage: Stage, *, config: AggregationConfig, pairs: Artifact, labels: Artifact, data_seed: int
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` from labels."""
    # 1. Sort the labels by purpose, and find the outcome of the votes.
    rows = read_dataset(pairs.path, "train")
    all_labels = read_labels(labels.path)
    ballot = sort_labels(all_labels)
    consensus = consensus_of(
        ballot, config, {row["pair_id"] for row in rows}, read_gold(labels.path), data_seed
    )
    if consensus.note is not None:
        stage.say(consensus.note)
    notes = [
        f"Counted as {len(names)} people: {', '.join(map(repr, names))}."
        for names in look_alikes(in_natural_order({label.annotator for label in all_labels}))
    ]
    for note in notes:
        stage.say_plainly(note)

    # 2. Make a preference of each pair that has one; keep the other pairs in a file of their own.
    splits, undecided, dropped = _decide(rows, pairs.id, ballot, consensus, config, data_seed)
    _count_labels_on_other_pairs(dropped, labels.id, all_labels, {row["pair_id"] for row in rows})
    if not splits["train"] or not splits["test"]:
        raise DataError(
            f"Of {len(rows)} labelled pairs, {len(splits['train'])} are left to train on and "
            f"{len(splits['test'])} held out, and both need at least one. Label more pairs, or "
            f"change held_out_share ({config.held_out_share}). Left out: {dropped.summary()}."
        )

    # 3. Write the dataset and its metrics.
    counts_alone = METHODS[consensus.method].counts_alone
    how = "Majority" if counts_alone else f"Consensus ({consensus.method})"
    counts: dict[str, float | None] = dict(
        write_dataset(
            stage.folder,
            splits,
            kind="preference",
            title="Preferences",
            description=" ".join([f"{how} of the votes in {labels.id}, split by prompt.", *notes]),
            dropped=dropped,
        )
    )
    _write_lines(stage.folder / UNDECIDED, undecided)
    truth_file = labels.path / TRUTH_FILE
    if truth_file.exists():
        counts |= best_possible(splits["test"], read_json(truth_file))
    return counts | metrics([*splits["train"], *splits["test"]], undecided, ballot)


def _decide(
    rows: Sequence[Row],
    origin: str,
    ballot: Ballot,
    consensus: Consensus,
    config: AggregationConfig,
    data_seed: int,
) -> tuple[dict[str, list[Row]], list[Row], Dropped]:
    """Return preferences by split, the undecided pairs, and what was left out and why."""
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    undecided, dropped = [], Dropped()
    for number, row in enumerate(rows, 1):
        pair_id = row["pair_id"]
        votes, outcome = ballot.votes.get(pair_id, []), consensus.outcomes.get(pair_id)
        verdict = verdict_on(pair_id, ballot, outcome, config)
        if verdict.reason is None and verdict.choice in ("a", "b"):
            held_out = is_held_out(row["prompt"], config.held_out_share, data_seed)
            splits["test" if held_out else "train"].append(
                preference(
                    row,
                    verdict.choice,
                    votes,
                    outcome=outcome,
                    decided_by=verdict.decided_by,
                    prior_votes=config.prior_votes,
                )
            )
        else:
            dropped.add(origin, number, str(verdict.reason), pair_id)
            undecided.append(undecided_row(row, verdict, votes, outcome))
    return splits, undecided, dropped


def consensus_of(
    ballot: Ballot,
    config: AggregationConfig,
    pair_ids: set[str],
    answers: Mapping[str, Choice],
    data_seed: int,
) -> Consensus:
    """Return the outcomes of the votes on these pairs; adjudications have no part in them."""
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
    pair_id: str, ballot: Ballot, outcome: Outcome | None, config: AggregationConfig
) -> Verdict:
    """Return the decision on a pair: the adjudication if there is one, else that of the votes."""
    decisions, votes = ballot.decisions.get(pair_id), ballot.votes.get(pair_id, [])
    if decisions is not None:
        choice = plurality(label.choice for label in decisions)
        reason = (
            "was adjudicated in different ways" if choice is None else _WHY_UNDECIDED.get(choice)
        )
        return Verdict(choice, "adjudication", reason)
    choice = outcome.choice if outcome is not None else None
    if not votes and any(label.pair_id == pair_id for label in ballot.gold):
        return Verdict(None, "votes", "is a gold item, on which nobody voted")
    if len(votes) < config.min_votes:
        reason = f"has fewer than min_votes ({config.min_votes}) votes"
        return Verdict(choice, "votes", reason)
    return Verdict(choice, "votes", _WHY_UNDECIDED.get(choice))


def preference(
    row: Row,
    chosen: Literal["a", "b"],
    labels: Sequence[Label],
    *,
    outcome: Outcome | None = None,
    decided_by: Literal["votes", "adjudication"] = "votes",
    prior_votes: float = 0.0,
) -> Row:
    """Return a preference row, with its votes; see the module's docstring for its columns.

    ``labels`` are the votes on the pair and ``outcome`` is theirs; without it, their shares are.
    """
    rejected: Choice = "b" if chosen == "a" else "a"
    counts = tally(labels)
    sided = counts["a"] + counts["b"]
    if outcome is None and labels:
        outcome = Outcome(
            plurality(label.choice for label in labels),
            {choice: count / len(labels) for choice, count in counts.items() if count},
        )
    probabilities = outcome.probabilities if outcome is not None else {}
    margin = graded_margin(labels, chosen)
    return {
        "pair_id": row["pair_id"],
        "prompt": row["prompt"],
        "chosen": row[chosen],
        "rejected": row[rejected],
        "chosen_side": chosen,
        "votes": len(labels),
        "vote_share": counts[chosen] / sided if sided else None,
        "tally": counts,
        "decided_by": decided_by,
        "voted": outcome.choice if outcome is not None else None,
        "confidence": probabilities.get(chosen, 0.0) if outcome is not None else None,
        "soft_label": 1.0
        if decided_by == "adjudication"
        else soft_label(probabilities, chosen, sided, prior_votes),
        **({} if margin is None else {"margin": margin}),
        **aspect_shares(labels, chosen),
    }


def aspect_shares(labels: Sequence[Label], chosen: Literal["a", "b"]) -> dict[str, float]:
    """Return the chosen response's share of the choices on each aspect, as ``aspect_NAME``.

    A tie counts as half a choice; other choices, such as two bad ones, do not count.
    """
    points = {"a": 0.0, "b": 0.0, "tie": 0.5} | {chosen: 1.0}
    by_aspect: dict[str, list[float]] = {}
    for label in labels:
        for name, choice in label.aspects.items():
            if choice in points:
                by_aspect.setdefault(f"aspect_{name}", []).append(points[choice])
    return {name: sum(values) / len(values) for name, values in sorted(by_aspect.items())}


def graded_margin(labels: Sequence[Label], chosen: Literal["a", "b"]) -> float | None:
    """Return by how much the chosen response is better in the mean of the votes, from 0 to 3.

    A vote counts with its strength, against the chosen response below 0, a tie as 0. The mean is at
    least 0. None where no vote has a strength.
    """
    graded = [label for label in labels if label.strength is not None or label.choice == "tie"]
    if all(label.strength is None for label in graded):
        return None
    signs = {chosen: 1, "tie": 0}
    signed = [signs.get(label.choice, -1) * (label.strength or 0) for label in graded]
    return max(0.0, sum(signed) / len(signed))


def soft_label(
    probabilities: Mapping[Choice, float],
    chosen: Literal["a", "b"],
    votes: int,
    prior_votes: float = 0.0,
) -> float:
    """Return the probability that the chosen response is the better of the two, to train on.

    It is p = P(chosen) / (P(a) + P(b)) by the method (for the majority, the share of votes), pulled
    towards one half by k ``prior_votes`` per side: (n p + k) / (n + 2 k), with n ``votes`` for
    either response. An adjudicated pair has 1: the decision is taken as certain.
    """
    sides = {side: probabilities.get(side, 0.0) for side in ("a", "b")}
    p = sides[chosen] / (sides["a"] + sides["b"])
    return (votes * p + prior_votes) / (votes + 2 * prior_votes) if prior_votes else p


def undecided_row(
    row: Row, verdict: Verdict, labels: Sequence[Label], outcome: Outcome | None
) -> Row:
    """Return a pair that became no preference, with its votes and the reason."""
    return {
        "pair_id": row["pair_id"],
        "reason": verdict.reason,
        "outcome": verdict.choice,
        "decided_by": verdict.decided_by,
        "votes": len(labels),
        "tally": tally(labels),
        "voted": outcome.choice if outcome is not None else None,
        "confidence": outcome.confidence if outcome is not None else None,
        "prompt": row["prompt"],
        "a": row["a"],
        "b": row["b"],
    }


def metrics(
    decided: Sequence[Row], undecided: Sequence[Row], ballot: Ballot
) -> dict[str, float | None]:
    """Return counts and the mean confidence over all pairs."""
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

    That judge knows what each simulated labeller thinks of each pair, but not who voted, and names
    the more probable outcome. ``best_possible`` is how often it is right on these votes, and
    ``best_possible_expected`` how often it would be right on new votes on the same pairs.
    """
    right = [(truth[row["pair_id"]] > 0.5) == (row["chosen_side"] == "a") for row in rows]
    expected = [max(truth[row["pair_id"]], 1 - truth[row["pair_id"]]) for row in rows]
    return {
        "best_possible": sum(right) / len(right),
        "best_possible_expected": sum(expected) / len(expected),
    }


def _count_labels_on_other_pairs(
    dropped: Dropped, origin: str, labels: Sequence[Label], pair_ids: set[str]
) -> None:
    """Count labels on pairs that are not here; gold items may come from elsewhere."""
    for number, label in enumerate(labels, 1):
        if label.pair_id not in pair_ids and label.purpose != "gold":
            reason = "is a label on a pair that is not among the pairs"
            dropped.add(origin, number, reason, label.pair_id)


def _write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(as_json_lines(rows), encoding="utf-8")
