"""Gold items of a simulation: the pairs whose responses differ most in utility."""

from __future__ import annotations

from collections.abc import Mapping

from plumbline.data.records import Row, prompts_of, read_dataset, write_dataset
from plumbline.errors import DataError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage, stage


@stage("pairs")
def clearest_pairs(
    stage: Stage, *, pairs: Artifact, utility: Scorer, count: int
) -> Mapping[str, float | None]:
    """Write the pairs whose responses differ most in utility, with the better one as ``answer``.

    In a real campaign, gold items are pairs that experts agree on. In a simulation the gold utility
    takes the place of the experts.
    """
    rows = read_dataset(pairs.path, "train")
    if count > len(rows):
        raise DataError(f"gold_items is {count}, but {pairs.id} has only {len(rows)} pairs.")
    prompts = prompts_of(rows)
    a, b = (
        utility.score(prompts, [row[side][-1]["content"] for row in rows]) for side in ("a", "b")
    )
    gap = [first - second for first, second in zip(a, b, strict=True)]
    order = sorted(range(len(rows)), key=lambda place: (-abs(gap[place]), rows[place]["pair_id"]))
    chosen = order[:count]
    write_dataset(
        stage.folder,
        {"train": [rows[n] | {"answer": "a" if gap[n] > 0 else "b"} for n in chosen]},
        kind="prompts",
        title="Gold items",
        description=f"Pairs of {pairs.id} with the clearest answers.",
    )
    return {"pairs": float(count), "smallest_gap": abs(gap[chosen[-1]]) if chosen else None}


def known_answers(pairs: Artifact) -> list[Row]:
    """Return the rows of gold items."""
    return read_dataset(pairs.path, "train")
