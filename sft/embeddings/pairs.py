"""Pairs of texts that belong together: read from any file, split by query, kept as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline.data.sources import RowSource
from plumbline.data.texts_split import held_out_place
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.stage import Stage, stage
from sft.embeddings.config import TextPairsConfig

Row = dict[str, Any]


@stage("text-pairs")
def build_text_pairs(
    stage: Stage, *, config: TextPairsConfig, source: RowSource, data_seed: int
) -> Mapping[str, float | None]:
    """Make splits ``train`` and ``test`` of queries with the texts that they should find."""
    from datasets import Dataset

    dropped, splits = Dropped(), {"train": list[Row](), "test": list[Row]()}
    seen: set[tuple[str, str]] = set()
    columns = (config.query_column, config.positive_column)
    for number, raw in enumerate(source.rows(), 1):
        if config.max_rows is not None and number > config.max_rows:
            break
        values = [(raw.record or {}).get(column) for column in columns]
        texts = [value.strip() if isinstance(value, str) else "" for value in values]
        if not all(texts):
            missing = columns[texts.index("")]
            problem = raw.problem or f"has no text under {missing!r}"
            dropped.add(source.name, raw.number, problem, raw.text or raw.record)
            continue
        query, positive = texts
        if (query, positive) in seen:
            dropped.add(source.name, raw.number, "repeats an earlier pair", query)
            continue
        seen.add((query, positive))
        held_out = held_out_place(query, data_seed) < config.held_out_share
        splits["test" if held_out else "train"].append({"query": query, "positive": positive})
    stage.report_dropped(dropped)
    if len(splits["train"]) < 2 or len({row["positive"] for row in splits["test"]}) < 2:
        raise DataError(
            f"{source.name} has {len(splits['train'])} pairs to train on and "
            f"{len(splits['test'])} held out; both need two different ones at least. Look at the "
            "columns (pairs.query_column, pairs.positive_column), or give more rows."
        )
    for split, rows in splits.items():
        Dataset.from_list(rows).to_parquet(stage.folder / f"{split}.parquet")
    counts = {f"{split}_rows": float(len(rows)) for split, rows in splits.items()}
    return counts | {"dropped_rows": float(len(dropped.rows))}


def read_text_pairs(folder: Path, split: str) -> list[Row]:
    """Return the rows of a split."""
    from datasets import Dataset

    return list(Dataset.from_parquet(str(folder / f"{split}.parquet")))
