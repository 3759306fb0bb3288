"""Responses of two policies side by side, for people or an LLM to compare.

The artefact is what the annotation room reads: ``pair_id``, ``prompt``, ``a`` and ``b``. Nothing in
it says which policy gave which response. A seed decides the sides for each prompt, so the sides can
be recovered from the seed and need not be written beside the pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from evaluation.sample_files import read_samples
from plumbline.data.records import Row, assistant, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage
from plumbline.seeds import rng

Side = Literal["a", "b"]
#: Equal responses are nothing to compare: they count as a tie, and nobody is asked.
SAME = "both policies gave the same response"
EMPTY = "one of the responses is empty"


@stage("pairs")
def pair_responses(
    stage: Stage,
    *,
    samples: Artifact,
    baseline_samples: Artifact,
    at_most: int | None,
    data_seed: int,
) -> Mapping[str, float | None]:
    """Write the responses of two policies to the same prompts as blind pairs.

    ``samples`` and ``baseline_samples``: artefacts with responses. ``at_most``: so many pairs,
    drawn at random; None takes all. Equal and empty responses are left out and counted.
    """
    rows, baseline_rows = read_samples(samples), read_samples(baseline_samples)
    pairs, dropped = blind_pairs(rows, baseline_rows, data_seed)
    if not pairs:
        raise DataError(
            f"{samples.id} and {baseline_samples.id} have no two responses to compare: "
            f"{dropped.summary()}."
        )
    if at_most is not None and at_most < len(pairs):
        kept = sorted(rng(data_seed, "pairs to judge").sample(range(len(pairs)), at_most))
        pairs = [pairs[number] for number in kept]
    stage.report_dropped(dropped)
    counts = write_dataset(
        stage.folder,
        {"train": pairs},
        kind="prompts",
        title="Responses to compare",
        description="Responses of two policies to the same prompts, in random order.",
        dropped=dropped,
    )
    return {
        "pairs": counts["train_rows"],
        "prompts": float(len(rows)),
        "same": float(dropped.reasons().get(SAME, 0)),
        "empty": float(dropped.reasons().get(EMPTY, 0)),
    }


def blind_pairs(
    rows: Sequence[Row], baseline_rows: Sequence[Row], data_seed: int
) -> tuple[list[Row], Dropped]:
    """Return the pairs in the order of ``rows``, sides drawn by the seed, and what is not a pair.

    Raises `DataError` where the two policies responded to different prompts.
    """
    baseline = {row["prompt_id"]: row for row in baseline_rows}
    if {row["prompt_id"] for row in rows} != set(baseline) or len(rows) != len(baseline):
        missing = sum(row["prompt_id"] not in baseline for row in rows)
        raise DataError(
            f"The two policies responded to different prompts: {missing} of {len(rows)} have no "
            "response by the other. Sample both on the same task."
        )
    pairs, dropped = [], Dropped()
    for number, row in enumerate(rows, 1):
        response = row["response"]
        baseline_response = baseline[row["prompt_id"]]["response"]
        if response == baseline_response:
            dropped.add("responses", number, SAME, row["prompt_id"])
            continue
        if not response.strip() or not baseline_response.strip():
            dropped.add("responses", number, EMPTY, {"prompt_id": row["prompt_id"]})
            continue
        name = pair_id(row["prompt_id"])
        sides = [response, baseline_response]
        first, second = sides if side_of(name, data_seed) == "a" else reversed(sides)
        pairs.append(
            {
                "pair_id": name,
                "prompt": row["prompt"],
                "a": [assistant(first)],
                "b": [assistant(second)],
            }
        )
    return pairs, dropped


def pair_id(identity: str) -> str:
    """Return the id of the pair of a prompt."""
    return f"{identity}-ab"


def side_of(name: str, data_seed: int) -> Side:
    """Return the side of the response that comes first in a row: a coin toss by the seed."""
    return "a" if rng(data_seed, "side", name).random() < 0.5 else "b"
