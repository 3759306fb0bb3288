"""The ids of pairs: what labels, selections and preferences know a pair by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from plumbline.data.labels import LABELS_FILE, read_labels
from plumbline.data.records import Row, columns_of, iterate_dataset, number_of_rows
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact


def checked_ids(rows: Sequence[Row], origin: str) -> list[str]:
    """Return the pairs' ids; refuses rows of which one has none, or two have the same."""
    for number, row in enumerate(rows, 1):
        if not row.get("pair_id"):
            raise DataError(f"{origin}, row {number}: the pair has no 'pair_id'.")
    ids = [str(row["pair_id"]) for row in rows]
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    if repeated:
        numbers = ", ".join(str(n) for n, name in enumerate(ids, 1) if name == repeated[0])
        others = f" (and {len(repeated) - 1} more ids repeat)" if len(repeated) > 1 else ""
        raise DataError(
            f"{origin}: the pair_id {repeated[0]} stands in rows {numbers}{others}, so it cannot "
            "be told which of them a label is on. Give every pair an id of its own."
        )
    return ids


def pairs_of(artifact: Artifact) -> set[str]:
    """Return the ids of the pairs that an artefact of labels, pairs or preferences is about."""
    if (artifact.path / LABELS_FILE).exists():
        return {label.pair_id for label in read_labels(artifact.path)}
    splits = sorted(path.stem for path in artifact.path.glob("*.parquet"))
    has_id = {split: "pair_id" in columns_of(artifact.path, split) for split in splits}
    missing = sum(number_of_rows(artifact.path, split) for split in splits if not has_id[split])
    if missing or not splits:
        problem = f"{missing} rows without a 'pair_id'" if splits else "no Parquet file"
        raise DataError(
            f"{artifact.id} was given as labelled already, but it has {problem}, so it cannot be "
            "told which pairs it is about. Give labels, pairs, or preferences made from pairs."
        )
    return {
        row["pair_id"]
        for split in splits
        for row in iterate_dataset(artifact.path, split, ["pair_id"])
    }
