"""Choosing the pairs to label next, as a stage: select, push, wait, pull, train, select again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from annotation.config import SelectionConfig
from annotation.features import PairEmbedder, WordFeatures
from annotation.labels import LABELS_FILE, read_labels
from annotation.selection import select
from plumbline.artefacts import Artefact, read_json, write_json
from plumbline.errors import ConfigError, DataError
from plumbline.hooks import Scorer
from plumbline.records import Dropped, Row, prompts_of, read_dataset, write_dataset
from plumbline.stages import Stage, stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@stage("pairs")
def select_pairs(
    stage: Stage,
    *,
    config: SelectionConfig,
    pairs: Artefact,
    scorers: Sequence[Scorer] = (),
    labelled: Sequence[Artefact] = (),
    labelled_ids: Sequence[str] = (),
    embedder: PairEmbedder | None = None,
    seed: int,
) -> dict[str, float | None]:
    """Choose ``config.count`` pairs of a pool; the others are counted, each with the reason.

    Several scorers are an ensemble. ``labelled`` are artefacts of labels, pairs or preferences
    whose pairs are not chosen again, ``labelled_ids`` such pairs by id. The chosen rows keep all
    their columns, in the order in which to label them, and get ``selection_score`` and
    ``selection_strategy``.
    """
    import numpy as np

    if len(scorers) < config.members_needed:
        raise ConfigError(
            f"selection.strategy is {config.strategy!r}, which needs at least "
            f"{config.members_needed} reward model(s) to ask, but was given {len(scorers)}. Train "
            "more, with other seeds, or take 'uniform' (needs none) or 'margin' (needs one)."
        )
    rows = read_dataset(pairs.path, "train")
    ids = _ids(rows, pairs)
    known = set(labelled_ids).union(*(pair_ids(artefact) for artefact in labelled))
    free = [place for place, name in enumerate(ids) if name not in known]
    if not free:
        raise DataError(
            f"All {len(rows)} pairs of {pairs.id} are labelled already; none is left to choose "
            "from. Sample more pairs, or stop here."
        )

    # What is labelled needs no score; its features count, as the places already looked at.
    deltas = np.zeros((len(scorers), len(rows)))
    if config.members_needed:
        deltas[:, free] = score_deltas(stage, [rows[place] for place in free], scorers)
    features = (embedder or WordFeatures()).embed(rows)
    selection = select(config, ids, deltas, features, labelled=known, seed=seed)

    chosen = set(selection.chosen)
    near_identical = set(selection.near_identical)
    dropped = Dropped()
    for place, name in enumerate(ids):
        if place in chosen:
            continue
        if name in known:
            reason = "is labelled already"
        elif place in near_identical:
            reason = "is nearly identical to a pair that was chosen"
        else:
            reason = "was not chosen this time"
        dropped.add(pairs.id, place + 1, reason, name)
    write_dataset(
        stage.folder,
        {
            "train": [
                rows[place] | {"selection_score": worth, "selection_strategy": config.strategy}
                for place, worth in zip(selection.chosen, selection.worth, strict=True)
            ]
        },
        kind="prompts",
        title="Pairs to label",
        description=f"Chosen from {pairs.id} by {config.strategy}, in the order to label them.",
        dropped=dropped,
    )
    if len(chosen) < config.count:
        stage.say(f"only {len(chosen)} pairs could be chosen, not {config.count}")
    reasons = dropped.reasons()
    return {
        "pairs": float(len(chosen)),
        "asked_for": float(config.count),
        "mean_score": float(np.mean(selection.worth)),
        "pool": float(len(rows)),
        "labelled_already": float(reasons.get("is labelled already", 0)),
        "near_identical": float(len(near_identical)),
    }


def pair_ids(artefact: Artefact) -> set[str]:
    """Return the ids of the pairs that an artefact of labels, pairs or preferences is about."""
    if (artefact.path / LABELS_FILE).exists():
        return {label.pair_id for label in read_labels(artefact.path)}
    splits = sorted(path.stem for path in artefact.path.glob("*.parquet"))
    rows = [row for split in splits for row in read_dataset(artefact.path, split)]
    missing = sum("pair_id" not in row for row in rows)
    if missing or not splits:
        found = f"{missing} rows without a 'pair_id'" if splits else "no Parquet file"
        raise DataError(
            f"{artefact.id} was given as labelled already, but it has {found}, so what it labels "
            "cannot be told. Give labels, pairs or preferences made from pairs."
        )
    return {row["pair_id"] for row in rows}


def score_deltas(
    stage: Stage, rows: Sequence[Row], scorers: Sequence[Scorer]
) -> NDArray[np.float64]:
    """Return each scorer's score of A less that of B, E x N; a killed stage keeps whole members."""
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


def _ids(rows: Sequence[Row], pairs: Artefact) -> list[str]:
    """Return the pairs' ids; refuses a pool in which a pair has none, or two have the same."""
    for number, row in enumerate(rows, 1):
        if not row.get("pair_id"):
            raise DataError(f"{pairs.id}, row {number}: the pair has no 'pair_id'.")
    ids = [str(row["pair_id"]) for row in rows]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        numbers = ", ".join(str(n) for n, name in enumerate(ids, 1) if name == repeated[0])
        raise DataError(
            f"{pairs.id}: the pair_id {repeated[0]} stands in rows {numbers}"
            f"{f' (and {len(repeated) - 1} more repeat)' if len(repeated) > 1 else ''}; "
            "a label could not be told to which it belongs."
        )
    return ids
