"""From votes to preferences: one row a pair, with the votes kept beside it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from annotation.config import AggregationConfig
from annotation.labels import Label, read_labels
from annotation.simulated import TRUTH_FILE
from plumbline.artefacts import Artefact, read_json
from plumbline.errors import DataError
from plumbline.records import Dropped, Row, is_held_out, read_dataset, write_dataset
from plumbline.stages import Stage, stage


@stage("preferences")
def aggregate_labels(
    stage: Stage, *, config: AggregationConfig, pairs: Artefact, labels: Artefact, data_seed: int
) -> Mapping[str, float | None]:
    """Make a preference dataset with splits ``train`` and ``test`` by majority vote."""
    rows = read_dataset(pairs.path, "train")
    votes: dict[str, list[Label]] = defaultdict(list)
    for label in read_labels(labels.path):
        votes[label.pair_id].append(label)

    splits: dict[str, list[Row]] = {"train": [], "test": []}
    dropped = Dropped()
    for number, row in enumerate(rows, 1):
        outcome = majority(votes[row["pair_id"]])
        if len(votes[row["pair_id"]]) < config.min_votes:
            reason = f"has fewer than min_votes ({config.min_votes}) votes"
            dropped.add(pairs.id, number, reason, row["pair_id"])
        elif outcome is None:
            dropped.add(pairs.id, number, "has no majority for either response", row["pair_id"])
        else:
            held_out = is_held_out(row["prompt"], config.held_out_share, data_seed)
            splits["test" if held_out else "train"].append(
                preference(row, outcome, votes[row["pair_id"]])
            )
    if not splits["train"] or not splits["test"]:
        raise DataError(
            f"{len(rows)} labelled pairs leave {len(splits['train'])} to train on and "
            f"{len(splits['test'])} held out; both need some. Left out: {dropped.reasons()}."
        )
    counts: dict[str, float | None] = dict(
        write_dataset(
            stage.folder,
            splits,
            kind="preference",
            title="Preferences",
            description=f"Majority of the votes in {labels.id}, split by prompt.",
            dropped=dropped,
        )
    )
    truth_file = labels.path / TRUTH_FILE
    if truth_file.exists():
        counts |= best_possible(splits["test"], read_json(truth_file))
    return counts


def majority(labels: Sequence[Label]) -> Literal["a", "b"] | None:
    """Return the side with more votes, or None where neither has."""
    counts = Counter(label.choice for label in labels)
    if counts["a"] == counts["b"]:
        return None
    return "a" if counts["a"] > counts["b"] else "b"


def preference(row: Row, outcome: Literal["a", "b"], labels: Sequence[Label]) -> Row:
    """Return a preference row, with the share of votes for what was chosen."""
    other = "b" if outcome == "a" else "a"
    decided = [label for label in labels if label.choice in ("a", "b")]
    return {
        "pair_id": row["pair_id"],
        "prompt": row["prompt"],
        "chosen": row[outcome],
        "rejected": row[other],
        "chosen_side": outcome,
        "votes": len(labels),
        "vote_share": sum(label.choice == outcome for label in decided) / len(decided),
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
