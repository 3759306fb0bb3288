"""Pairs of texts that belong together: read from any file, split by query, kept as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from plumbline.data.row_writer import RowWriter
from plumbline.data.sources import RowSource
from plumbline.data.texts_split import held_out_place, text_number
from plumbline.dropped import DroppedFile
from plumbline.errors import DataError
from plumbline.runs.stage import Stage, stage
from sft.embeddings.config import TextPairsConfig

Row = dict[str, Any]


@stage("text-pairs")
def build_text_pairs(
    stage: Stage, *, config: TextPairsConfig, source: RowSource, data_seed: int
) -> Mapping[str, float | None]:
    """Make splits ``train`` and ``test`` of queries with the texts that they should find."""
    dropped = DroppedFile(stage.folder)
    seen: set[int] = set()  # about 100 bytes of memory for each pair
    positives: set[int] = set()
    columns = (config.query_column, config.positive_column)
    with ExitStack() as stack:
        train, test = (
            stack.enter_context(RowWriter(stage.folder / f"{split}.parquet"))
            for split in ("train", "test")
        )
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
            key = text_number(f"{len(query)} {query}{positive}")
            if key in seen:
                dropped.add(source.name, raw.number, "repeats an earlier pair", query)
                continue
            seen.add(key)
            held_out = held_out_place(query, data_seed) < config.held_out_share
            if held_out:
                positives.add(text_number(positive))
            (test if held_out else train).add({"query": query, "positive": positive})
        stage.report_dropped(dropped)
        if train.rows < 2 or len(positives) < 2:
            raise DataError(
                f"{source.name} has {train.rows} pairs to train on and {test.rows} held out; both "
                "need two different ones at least. Look at the columns (pairs.query_column, "
                "pairs.positive_column), or give more rows."
            )
        for file in (train, test):
            file.finish()
    return {
        "train_rows": float(train.rows),
        "test_rows": float(test.rows),
        "dropped_rows": float(len(dropped)),
    }
