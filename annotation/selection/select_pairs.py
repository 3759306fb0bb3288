"""Choosing the pairs to label next, as a stage: select, push, wait, pull, train, select again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from annotation.pair_ids import checked_ids, pairs_of
from annotation.selection.acquisition import STRATEGIES
from annotation.selection.batch import Selection, select
from annotation.selection.config import SelectionConfig
from annotation.selection.features import PairEmbedder, WordFeatures
from plumbline.data.records import Row, prompts_of, read_dataset, write_dataset
from plumbline.dropped import Dropped
from plumbline.errors import ConfigError, DataError
from plumbline.hooks import Scorer
from plumbline.runs.artifacts import Artifact, read_json, write_json
from plumbline.runs.stage import Stage, stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_LABELED = "is labelled already"


@stage("pairs")
def select_pairs(
    stage: Stage,
    *,
    config: SelectionConfig,
    pairs: Artifact,
    scorers: Sequence[Scorer] = (),
    labeled: Sequence[Artifact] = (),
    labeled_ids: Sequence[str] = (),
    embedder: PairEmbedder | None = None,
    seed: int,
) -> dict[str, float | None]:
    """Choose ``config.count`` pairs of a pool; the others are counted, each with the reason.

    Several scorers are an ensemble. ``labeled`` are artefacts of labels, pairs or preferences
    whose pairs are not chosen again, and ``labeled_ids`` such pairs by id. The chosen rows keep all
    their columns, in the order in which to label them, and get ``selection_score`` and
    ``selection_strategy``.
    """
    import numpy as np

    needed = STRATEGIES[config.strategy].members
    if len(scorers) < needed:
        raise ConfigError(
            f"selection.strategy is {config.strategy!r}, which needs at least {needed} reward "
            f"model(s), but it got {len(scorers)}. Train more of them with other seeds, or use "
            "'uniform' (needs none) or 'margin' (needs one)."
        )
    rows = read_dataset(pairs.path, "train")
    ids = checked_ids(rows, pairs.id)
    excluded = set(labeled_ids).union(*(pairs_of(artifact) for artifact in labeled))
    free = [position for position, name in enumerate(ids) if name not in excluded]
    if not free:
        raise DataError(
            f"All {len(rows)} pairs of {pairs.id} are labelled already; none is left to choose "
            "from. Sample more pairs, or stop here."
        )

    # Labelled pairs need no score. Their features count, for the batch should differ from them.
    deltas = np.zeros((len(scorers), len(rows)))
    if needed:
        deltas[:, free] = score_deltas(stage, [rows[position] for position in free], scorers)
    features = (embedder or WordFeatures()).embed(rows)
    selection = select(config, ids, deltas, features, labeled=excluded, seed=seed)
    dropped = _not_chosen(selection, ids, excluded, pairs.id)
    _write(stage, config, rows, selection, pairs.id, dropped)
    if len(selection.chosen) < config.count:
        stage.say(f"only {len(selection.chosen)} pairs could be chosen, not {config.count}")
    reasons = dropped.reasons()
    return {
        "pairs": float(len(selection.chosen)),
        "asked_for": float(config.count),
        "mean_score": float(np.mean(selection.worth)),
        "pool": float(len(rows)),
        "labeled_already": float(reasons.get(_LABELED, 0)),
        "near_identical": float(len(selection.near_identical)),
    }


def _write(
    stage: Stage,
    config: SelectionConfig,
    rows: Sequence[Row],
    selection: Selection,
    origin: str,
    dropped: Dropped,
) -> None:
    """Write the chosen rows, with their score and the strategy."""
    write_dataset(
        stage.folder,
        {
            "train": [
                rows[position] | {"selection_score": worth, "selection_strategy": config.strategy}
                for position, worth in zip(selection.chosen, selection.worth, strict=True)
            ]
        },
        kind="prompts",
        title="Pairs to label",
        description=f"Chosen from {origin} by {config.strategy}, in the order to label them.",
        dropped=dropped,
    )


def _not_chosen(
    selection: Selection, ids: Sequence[str], labeled: set[str], origin: str
) -> Dropped:
    """Return the pairs that were not chosen, each with the reason."""
    chosen, near_identical = set(selection.chosen), set(selection.near_identical)
    dropped = Dropped()
    for position, name in enumerate(ids):
        if position in chosen:
            continue
        if name in labeled:
            reason = _LABELED
        elif position in near_identical:
            reason = "is nearly identical to a pair that was chosen"
        else:
            reason = "was not chosen this time"
        dropped.add(origin, position + 1, reason, name)
    return dropped


def score_deltas(
    stage: Stage, rows: Sequence[Row], scorers: Sequence[Scorer]
) -> NDArray[np.float64]:
    """Return each scorer's score of A less that of B, ``[E, N]``.

    A stage that is killed keeps the scores of the members that it finished.
    """
    import numpy as np

    prompts = prompts_of(rows)
    deltas = []
    with stage.bar("scores", len(scorers)) as bar:
        for number, scorer in enumerate(scorers):
            shard = stage.shards / f"deltas-{number:04d}.json"
            if not shard.exists():
                a, b = (
                    scorer.score(prompts, [row[side][-1]["content"] for row in rows])
                    for side in ("a", "b")
                )
                write_json(shard, [x - y for x, y in zip(a, b, strict=True)])
            deltas.append(read_json(shard))
            bar.advance()
            bad = np.flatnonzero(~np.isfinite(deltas[-1]))
            if len(bad):
                row = rows[bad[0]]
                raise DataError(
                    f"The scorer {scorer.name!r} (number {number + 1}) gives no finite score to "
                    f"{len(bad)} of {len(rows)} pairs, the first of them {row['pair_id']}. "
                    "Train it again; a reward model that diverged cannot choose."
                )
    return np.array(deltas)
