"""Two policies' answers side by side, for whoever compares pairs: people, or an LLM.

The artefact is what the annotation room reads: ``pair_id``, ``prompt``, ``a`` and ``b``. Nothing in
it says whose answer is which; a seed decides for each prompt, so that whoever has the seed can tell
afterwards and nobody need write it down beside the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from evaluation.samples import read_samples
from plumbline.data.records import Row, assistant, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng

Side = Literal["a", "b"]
#: The same words are no comparison: they count as a tie, and nobody is asked.
SAME = "both policies gave the same answer"
EMPTY = "one of the answers is empty"


@stage("pairs")
def pair_answers(
    stage: Stage, *, ours: Artifact, theirs: Artifact, at_most: int | None, data_seed: int
) -> Mapping[str, float | None]:
    """Write two policies' answers to the same prompts as pairs to compare, blind.

    ``ours`` and ``theirs`` are artefacts with samples. ``at_most`` so many, drawn at random; null
    takes all. Answers that are the same, or empty, are left out and counted.
    """
    one, other = read_samples(ours), read_samples(theirs)
    rows, dropped = blind_pairs(one, other, data_seed)
    if not rows:
        raise DataError(
            f"{ours.id} and {theirs.id} have no two answers to compare: {dropped.reasons()}."
        )
    if at_most is not None and at_most < len(rows):
        kept = sorted(rng(data_seed, "pairs to judge").sample(range(len(rows)), at_most))
        rows = [rows[number] for number in kept]
    stage.report_dropped(dropped)
    counts = write_dataset(
        stage.folder,
        {"train": rows},
        kind="prompts",
        title="Answers to compare",
        description="Two policies' answers to the same prompts, in random order.",
        dropped=dropped,
    )
    return {
        "pairs": counts["train_rows"],
        "prompts": float(len(one)),
        "same": float(dropped.reasons().get(SAME, 0)),
        "empty": float(dropped.reasons().get(EMPTY, 0)),
    }


def blind_pairs(
    ours: Sequence[Row], theirs: Sequence[Row], data_seed: int
) -> tuple[list[Row], Dropped]:
    """Return the pairs in the order of our rows, sides drawn by the seed, and what is no pair."""
    others = {row["prompt_id"]: row for row in theirs}
    if {row["prompt_id"] for row in ours} != set(others) or len(ours) != len(others):
        missing = sum(row["prompt_id"] not in others for row in ours)
        raise DataError(
            f"The two policies answered different prompts: {missing} of {len(ours)} have no "
            "answer by the other. Sample both on the same task."
        )
    rows, dropped = [], Dropped()
    for number, row in enumerate(ours, 1):
        mine, other = row["response"], others[row["prompt_id"]]["response"]
        if mine == other:
            dropped.add("answers", number, SAME, row["prompt_id"])
            continue
        if not mine.strip() or not other.strip():
            dropped.add("answers", number, EMPTY, {"prompt_id": row["prompt_id"]})
            continue
        name = pair_id(row["prompt_id"])
        first, second = (mine, other) if side_of_ours(name, data_seed) == "a" else (other, mine)
        rows.append(
            {
                "pair_id": name,
                "prompt": row["prompt"],
                "a": [assistant(first)],
                "b": [assistant(second)],
            }
        )
    return rows, dropped


def pair_id(identity: str) -> str:
    """Return the id of a prompt's pair."""
    return f"{identity}-ab"


def side_of_ours(name: str, data_seed: int) -> Side:
    """Return on which side of a pair our answer stands: a coin that the seed tosses."""
    return "a" if rng(data_seed, "side", name).random() < 0.5 else "b"
