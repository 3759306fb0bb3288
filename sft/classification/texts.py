"""Texts with labels: read from any file, split by text, kept as an artefact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline.data.raw_rows import RawRow
from plumbline.data.sources import RowSource
from plumbline.data.texts_split import held_out_place
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import read_json, write_json
from plumbline.runs.stage import Stage, stage
from sft.classification.config import LabeledTextsConfig

LABELS = "labels.json"
Row = dict[str, Any]


@stage("labeled-texts")
def build_labeled_texts(
    stage: Stage, *, config: LabeledTextsConfig, source: RowSource, data_seed: int
) -> Mapping[str, float | None]:
    """Make splits ``train`` and ``test`` of texts with labels; a text is on one side only."""
    from datasets import Dataset

    dropped, rows, seen = Dropped(), list[Row](), set[str]()
    for number, raw in enumerate(source.rows(), 1):
        if config.max_rows is not None and number > config.max_rows:
            break
        row, problem = _read(raw, config)
        if row is None:
            dropped.add(source.name, raw.number, problem, raw.text or raw.record)
        elif row["text"] in seen:
            dropped.add(source.name, raw.number, "repeats an earlier text", row["text"])
        else:
            seen.add(row["text"])
            rows.append(row)
    stage.report_dropped(dropped)
    several = any(row["several"] for row in rows)
    names = sorted({label for row in rows for label in row["labels"]})
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    for row in rows:
        held_out = held_out_place(row["text"], data_seed) < config.held_out_share
        splits["test" if held_out else "train"].append(
            {"text": row["text"], "labels": row["labels"]}
        )
    _check(splits, names, several, source.name)
    for split, kept in splits.items():
        Dataset.from_list(kept).to_parquet(stage.folder / f"{split}.parquet")
    write_json(stage.folder / LABELS, {"labels": names, "several": several})
    counts = Counter(label for row in rows for label in row["labels"])
    return {
        **{f"{split}_rows": float(len(kept)) for split, kept in splits.items()},
        "labels": float(len(names)),
        "rarest_label_rows": float(min(counts.values())),
        "dropped_rows": float(len(dropped.rows)),
    }


def read_labeled_texts(folder: Path) -> tuple[dict[str, list[Row]], list[str], bool]:
    """Return the splits, the names of all labels, and whether a text may have several."""
    from datasets import Dataset

    about = read_json(folder / LABELS)
    splits = {
        split: list(Dataset.from_parquet(str(folder / f"{split}.parquet")))
        for split in ("train", "test")
    }
    return splits, list(about["labels"]), bool(about["several"])


def _read(raw: RawRow, config: LabeledTextsConfig) -> tuple[Row | None, str]:
    """Return a row's text and labels, or None with the reason."""
    record = raw.record
    if record is None:
        return None, raw.problem or "cannot be read"
    for column in (config.text_column, config.label_column):
        if column not in record:
            return None, f"has no column {column!r} (it has {', '.join(map(str, record))})"
    text, label = record[config.text_column], record[config.label_column]
    if not isinstance(text, str) or not text.strip():
        return None, f"has no text under {config.text_column!r}"
    several = isinstance(label, list)
    labels = label if isinstance(label, list) else [label]
    if any(isinstance(label, bool) or not isinstance(label, str | int) for label in labels):
        return None, f"has a label that is neither a name nor a number: {label!r}"
    if not several and not str(label).strip():
        return None, "has an empty label"
    names = sorted({str(label).strip() for label in labels})
    return {"text": text.strip(), "labels": names, "several": several}, ""


def _check(splits: Mapping[str, list[Row]], names: list[str], several: bool, origin: str) -> None:
    if len(names) < (1 if several else 2):
        raise DataError(
            f"{origin} has {len(names)} label(s): {', '.join(names) or 'none'}. A classifier needs "
            "two at least. Look at the columns (texts.text_column, texts.label_column)."
        )
    for split, rows in splits.items():
        missing = [n for n in names if not any(n in row["labels"] for row in rows)]
        if missing:
            raise DataError(
                f"No text of the split {split} has the label {missing[0]!r}, so it cannot be "
                f"{'learnt' if split == 'train' else 'measured'}. Give more rows of it, or change "
                "texts.held_out_share."
            )
