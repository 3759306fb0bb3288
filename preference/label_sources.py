"""Files of thumbs: single responses that were liked or not, for KTO or as pairs for DPO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from plumbline.data.reader import ExampleReader, ReadReport
from plumbline.data.records import (
    DatasetWriter,
    Row,
    is_held_out,
    opening,
    problem_with_row,
    prompt_number,
)
from plumbline.data.sources import Source
from plumbline.data.stored_rows import StoredRows
from plumbline.data.uses import USES
from plumbline.dropped import DroppedFile, LeftOut
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
    dropped = DroppedFile(stage.folder)
    responses = LabelReader(file, config, dropped)
    report, liked = responses.report, 0
    with DatasetWriter(
        stage.folder, ("train", "test"), kind="unpaired", title="Labelled responses"
    ) as writer:
        for row in responses:
            # Dialogues that grow from each other share their opening, and are on one side.
            out = is_held_out(opening(row["prompt"]), config.held_out_share, data_seed)
            writer.add("test" if out else "train", row)
            liked += not out and row["label"]
        trained = writer.rows("train")
        if not writer.rows("test") or not 0 < liked < trained:
            raise DataError(
                f"{report.origin} leaves {trained} responses to train on, {liked} of them liked, "
                f"and {writer.rows('test')} held out; some of each are needed. Give more, or raise "
                f"held_out_share. Left out: {dropped.summary() or 'none'}."
            )
        for note in report.notes():
            stage.say_plainly(note)
        stage.report_dropped(dropped)
        description = f"Responses that were liked or not, from {report.origin}."
        counts = writer.finish("\n\n".join([description, *report.notes()]), dropped)
    return {**counts, "liked_share": liked / trained}


@stage("preferences")
def pair_labels(
    stage: Stage, *, labels: Artifact, pairs_per_prompt: int, seed: int
) -> Mapping[str, float | None]:
    """Make preferences of labelled responses: liked ones against others to the same prompt."""
    dropped = DroppedFile(stage.folder)
    splits = ("train", "test")
    with DatasetWriter(
        stage.folder, splits, kind="preference", title="Preferences of labelled responses"
    ) as writer:
        for split in splits:
            rows = StoredRows(labels.path, split, stage.scratch)
            for pair in paired_rows(rows, pairs_per_prompt, seed, dropped):
                writer.add(split, pair)
        if not writer.rows("train") or not writer.rows("test"):
            raise DataError(
                f"The labels of {labels.id} make {writer.rows('train')} pairs to train on and "
                f"{writer.rows('test')} held out; both need some. Train on them as they are by "
                f"plumbline train kto. Left out: {dropped.summary() or 'none'}."
            )
        stage.report_dropped(dropped)
        return writer.finish(
            f"Liked responses of {labels.id} against others to the same prompt.", dropped
        )


class LabelReader:
    """Reads rows with ``prompt``, ``completion``, ``label``, one by one; ``report`` grows.

    Each row takes about 100 bytes of memory, by which its repetitions are known.
    """

    def __init__(
        self,
        file: Source | SourceFile,
        config: LabelFileConfig,
        dropped: LeftOut | None = None,
    ) -> None:
        self._config = config
        self._reader = ExampleReader(
            file, USES["unpaired"], config, max_rows=config.max_rows, dropped=dropped
        )

    @property
    def report(self) -> ReadReport:
        """What became of the rows that were read."""
        return self._reader.report

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows that can be used."""
        reader = self._reader
        seen: dict[int, bool] = {}
        for entry in reader:
            example = entry.example
            row: Row = {
                "prompt": example.prompt,
                "completion": example.response,
                "label": example.label,
            }
            problem = _problem(row, self._config, seen)
            if problem is None:
                yield row | {"origin": reader.report.origin, "row": entry.number}
            else:
                reader.leave_out(entry, problem)


def _problem(row: Row, config: LabelFileConfig, seen: dict[int, bool]) -> str | None:
    problem = problem_with_row(row, "unpaired")
    if problem is not None:
        return problem
    if row["prompt"][-1]["role"] != "user":
        return f"'prompt' ends with the {row['prompt'][-1]['role']}'s turn, not the user's"
    if len(row["completion"]) > 1:
        return f"'completion' has {len(row['completion'])} messages; one response is judged"
    key = prompt_number([*row["prompt"], *row["completion"]])
    if key in seen:
        same = seen[key] is row["label"]
        return "repeats an earlier row" if same else "an earlier row has the other label"
    seen[key] = row["label"]
    if sum(len(m["content"]) for m in [*row["prompt"], *row["completion"]]) > config.max_characters:
        return f"is longer than max_characters ({config.max_characters})"
    return None
