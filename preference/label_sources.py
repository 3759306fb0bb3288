"""Files of thumbs: single responses that were liked or not, for KTO or as pairs for DPO."""

from __future__ import annotations

from collections.abc import Mapping

from plumbline.data.reader import ExampleReader, ReadReport
from plumbline.data.records import (
    Row,
    is_held_out,
    opening,
    problem_with_row,
    prompt_id,
    read_dataset,
    write_dataset,
)
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from preference.labels import paired_rows
from preference.pairs_config import LabelFileConfig


@stage("unpaired")
def import_labels(
    stage: Stage, *, config: LabelFileConfig, file: Source | SourceFile, data_seed: int
) -> Mapping[str, float | None]:
    """Make a dataset of labelled responses with splits ``train`` and ``test`` from a file."""
    rows, report = read_labeled(file, config)
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    for row in rows:
        # Dialogues that grow from each other share their opening, and are on one side.
        out = is_held_out(opening(row["prompt"]), config.held_out_share, data_seed)
        splits["test" if out else "train"].append(row)
    liked = [row["label"] for row in splits["train"]]
    if not splits["test"] or not 0 < sum(liked) < len(liked):
        raise DataError(
            f"{report.origin} leaves {len(liked)} responses to train on, {sum(liked)} of them "
            f"liked, and {len(splits['test'])} held out; some of each are needed. Give more, "
            f"or raise held_out_share. Left out: {report.dropped.reasons() or 'none'}."
        )
    for note in report.notes():
        stage.say_plainly(note)
    stage.report_dropped(report.dropped)
    counts = write_dataset(
        stage.folder,
        splits,
        kind="unpaired",
        title="Labelled responses",
        description="\n\n".join(
            [f"Responses that were liked or not, from {report.origin}.", *report.notes()]
        ),
        dropped=report.dropped,
    )
    return {**counts, "liked_share": sum(liked) / len(liked)}


@stage("preferences")
def pair_labels(
    stage: Stage, *, labels: Artifact, pairs_per_prompt: int, seed: int
) -> Mapping[str, float | None]:
    """Make preferences of labelled responses: liked ones against others to the same prompt."""
    dropped = Dropped()
    splits = {
        split: paired_rows(read_dataset(labels.path, split), pairs_per_prompt, seed, dropped)
        for split in ("train", "test")
    }
    if not splits["train"] or not splits["test"]:
        raise DataError(
            f"The labels of {labels.id} make {len(splits['train'])} pairs to train on and "
            f"{len(splits['test'])} held out; both need some. Train on them as they are by "
            f"plumbline train kto. Left out: {dropped.summary() or 'none'}."
        )
    stage.report_dropped(dropped)
    return write_dataset(
        stage.folder,
        splits,
        kind="preference",
        title="Preferences of labelled responses",
        description=f"Liked responses of {labels.id} against others to the same prompt.",
        dropped=dropped,
    )


def read_labeled(
    file: Source | SourceFile, config: LabelFileConfig
) -> tuple[list[Row], ReadReport]:
    """Read rows with ``prompt``, ``completion``, ``label``; keep what is wrong with the others."""
    reader = ExampleReader(file, USES["unpaired"], config, max_rows=config.max_rows)
    rows: list[Row] = []
    seen: dict[str, bool] = {}
    for entry in reader:
        example = entry.example
        row: Row = {
            "prompt": example.prompt,
            "completion": example.response,
            "label": example.label,
        }
        problem = _problem(row, config, seen)
        if problem is None:
            rows.append(row | {"origin": reader.report.origin, "row": entry.number})
        else:
            reader.leave_out(entry, problem)
    return rows, reader.report


def _problem(row: Row, config: LabelFileConfig, seen: dict[str, bool]) -> str | None:
    problem = problem_with_row(row, "unpaired")
    if problem is not None:
        return problem
    if row["prompt"][-1]["role"] != "user":
        return f"'prompt' ends with the {row['prompt'][-1]['role']}'s turn, not the user's"
    key = prompt_id([*row["prompt"], *row["completion"]])
    if key in seen:
        same = seen[key] is row["label"]
        return "repeats an earlier row" if same else "an earlier row has the other label"
    seen[key] = row["label"]
    if sum(len(m["content"]) for m in [*row["prompt"], *row["completion"]]) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
