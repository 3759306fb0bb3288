"""Texts with labels: read from any file, split by text, kept as an artefact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from plumbline.data.raw_rows import RawRow
from plumbline.data.row_writer import RowWriter
from plumbline.data.sources import RowSource
from plumbline.data.texts_split import held_out_place, text_number
from plumbline.dropped import DroppedFile
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
    dropped = DroppedFile(stage.folder)
    seen: set[int] = set()  # about 100 bytes of memory for each text
    counts: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}
    several = False
    with ExitStack() as stack:
        files = {
            split: stack.enter_context(RowWriter(stage.folder / f"{split}.parquet"))
            for split in counts
        }
        for number, raw in enumerate(source.rows(), 1):
            if config.max_rows is not None and number > config.max_rows:
                break
            row, problem = _read(raw, config)
            if row is None:
                dropped.add(source.name, raw.number, problem, raw.text or raw.record)
            elif (key := text_number(row["text"])) in seen:
                dropped.add(source.name, raw.number, "repeats an earlier text", row["text"])
            else:
                seen.add(key)
                several = several or row["several"]
                held_out = held_out_place(row["text"], data_seed) < config.held_out_share
                split = "test" if held_out else "train"
                counts[split].update(row["labels"])
                files[split].add({"text": row["text"], "labels": row["labels"]})
        stage.report_dropped(dropped)
        names = sorted(counts["train"].keys() | counts["test"].keys())
        _check(counts, names, several, source.name)
        for file in files.values():
            file.finish()
    write_json(stage.folder / LABELS, {"labels": names, "several": several})
    return {
        **{f"{split}_rows": float(file.rows) for split, file in files.items()},
        "labels": float(len(names)),
        "rarest_label_rows": float(min((counts["train"] + counts["test"]).values())),
        "dropped_rows": float(len(dropped)),
    }


def labels_of(folder: Path) -> tuple[list[str], bool]:
    """Return the names of all labels, and whether a text may have several."""
    about = read_json(folder / LABELS)
    return list(about["labels"]), bool(about["several"])


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


def _check(
    counts: Mapping[str, Mapping[str, int]], names: list[str], several: bool, origin: str
) -> None:
    """Raise `DataError` where a label is missing. ``counts``: texts by split and label."""
    if len(names) < (1 if several else 2):
        raise DataError(
            f"{origin} has {len(names)} label(s): {', '.join(names) or 'none'}. A classifier needs "
            "two at least. Look at the columns (texts.text_column, texts.label_column)."
        )
    for split, of_split in counts.items():
        missing = [name for name in names if not of_split[name]]
        if missing:
            raise DataError(
                f"No text of the split {split} has the label {missing[0]!r}, so it cannot be "
                f"{'learnt' if split == 'train' else 'measured'}. Give more rows of it, or change "
                "texts.held_out_share."
            )
