"""Labelled steps: from a file in a known format, and as token ids on their way to a model.

A row has ``prompt``, ``completions`` (the steps; joined, they are the response) and ``labels``, the
probability that each step is right, null where nobody said. These are TRL's names for stepwise
supervision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.reader import DataFormatConfig, ExampleReader
from plumbline.data.records import (
    DatasetWriter,
    Row,
    is_held_out,
    iterate_dataset,
    problem_with_row,
    prompt_number,
)
from plumbline.data.sources import Source
from plumbline.data.uses import USES
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.errors import DataError
from plumbline.lm.chat import EncodedResponses
from plumbline.lm.context import LengthLimit
from plumbline.runs.artifacts import Artifact, read_json, write_json
from plumbline.runs.calls import SourceFile
from plumbline.runs.stage import Stage, stage
from plumbline.training.encoded_rows import keep_encoded
from plumbline.training.row_file import Kind, LazyRows, Lists, RowFile, file_in
from reward.process.config import StepFileConfig
from reward.process.steps import step_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: What labelled steps say about how they were cut.
_SPLIT = "split.json"


class EncodedSteps(NamedTuple):
    """A response as ids, with the labelled ends of its steps."""

    ids: list[int]
    """Prompt and response."""
    places: list[int]
    """Which of the ids ends each labelled step."""
    labels: list[float]
    """Probability that each of these steps is right."""


_COLUMNS: dict[str, Kind] = {"ids": "ids", "places": "ids", "labels": "numbers"}


@stage("steps")
def import_steps(
    stage: Stage, *, config: StepFileConfig, file: Source | SourceFile, data_seed: int
) -> Mapping[str, float | None]:
    """Make a dataset of labelled steps from a file, such as PRM800K's."""
    dropped = DroppedFile(stage.folder)
    reader = ExampleReader(
        file, USES["steps"], DataFormatConfig(), max_rows=config.max_rows, dropped=dropped
    )
    share, description = config.held_out_share, f"Steps from {reader.report.origin}"
    metrics = write_steps(stage, step_rows(reader), "lines", share, data_seed, description, dropped)
    stage.report_dropped(dropped)
    return metrics


def step_rows(reader: ExampleReader) -> Iterator[Row]:
    """Yield the rows of a file that can be used; the reader counts the others."""
    for entry in reader:
        example = entry.example
        *before, last = [step.strip() for step in example.steps]
        row: Row = {
            "prompt": example.prompt,
            "completions": [*(f"{step}\n" for step in before), last],
            "labels": list(example.step_labels),
            "origin": reader.report.origin,
            "row": entry.number,
        }
        problem = problem_with_row(row, "stepwise")
        if problem is None:
            yield row
        else:
            reader.leave_out(entry, problem)


def write_steps(
    stage: Stage,
    rows: Iterable[Row],
    split: str,
    held_out_share: float,
    data_seed: int,
    description: str,
    dropped: LeftOut,
    rollouts: int = 0,
) -> dict[str, float | None]:
    """Write labelled steps as a dataset with splits ``train`` and ``test``, by prompt.

    ``split`` says how the responses were cut into steps, ``rollouts`` of how many continuations a
    label is a share. Each different prompt takes about 100 bytes of memory, by which they are
    counted.
    """
    prompts: set[int] = set()
    steps, right = 0, 0.0
    with DatasetWriter(
        stage.folder, ("train", "test"), kind="stepwise", title="Labelled steps"
    ) as writer:
        for row in rows:
            held_out = is_held_out(row["prompt"], held_out_share, data_seed)
            writer.add("test" if held_out else "train", row)
            prompts.add(prompt_number(row["prompt"]))
            for label in row["labels"]:
                if label is not None:
                    steps, right = steps + 1, right + label
        if not writer.rows("train") or not writer.rows("test"):
            raise DataError(
                f"{description}: {writer.rows('train')} rows are left to train on and "
                f"{writer.rows('test')} held out, and both need one at least. Give more prompts, "
                f"or change held_out_share ({held_out_share:g}). Left out: "
                f"{dropped.summary() or 'none'}."
            )
        counts = writer.finish(description, dropped)
    write_json(stage.folder / _SPLIT, {"split": split, "rollouts": rollouts})
    return {
        **counts,
        "steps": float(steps),
        "right_share": right / steps if steps else None,
        "prompts": float(len(prompts)),
    }


def hard_labels(labels: Sequence[float | None]) -> list[float | None]:
    """Return 1 for steps whose label is above 0, else 0; None stays None.

    Wang et al. (2024), "Math-Shepherd", section 3.3: hard estimation, in which a step is right if
    any of its continuations comes to the right result.
    """
    return [None if label is None else float(label > 0) for label in labels]


def labeled_rows(steps: Artifact, split: str, *, hard: bool) -> Iterator[Row]:
    """Yield the rows of a split, with ``hard`` labels or as they are."""
    for row in iterate_dataset(steps.path, split):
        yield row | {"labels": hard_labels(row["labels"])} if hard else row


def split_of(steps: Artifact) -> str:
    """Return how the responses of labelled steps were cut; lines, where older ones do not say."""
    file = steps.path / _SPLIT
    return str(read_json(file)["split"]) if file.exists() else "lines"


def are_from_rollouts(steps: Artifact) -> bool:
    """Return whether labels are shares of right continuations; older ones do not say so."""
    file = steps.path / _SPLIT
    return file.exists() and bool(read_json(file).get("rollouts"))


def encode_steps(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    folder: Path | None = None,
) -> LazyRows[EncodedSteps]:
    """Return the rows that fit, as ids; the others are kept with the reason.

    They are written to a file in ``folder``, and each is read when it is asked for; without a
    folder they are in memory, which is for few rows.
    """
    kept = RowFile(_COLUMNS, file_in(folder, "steps.arrow"))
    number = keep_encoded(
        kept, rows, tokenizer, limit, dropped, origin="steps",
        responses=lambda row: ["".join(row["completions"])],
        columns=lambda row, ids: _encoded(row, ids, tokenizer)._asdict(), problem=_unlabeled,
    )  # fmt: skip
    if not len(kept):
        raise DataError(f"None of {number} rows can be trained on: {dropped.summary()}.")
    table = kept.table()
    columns = [Lists(table[name]) for name in _COLUMNS]
    return LazyRows(len(kept), lambda number: EncodedSteps(*(c[number] for c in columns)))


def _unlabeled(row: Row, ids: EncodedResponses) -> str | None:
    labeled = any(label is not None for label in row["labels"])
    return None if labeled else "has no step with a label"


def _encoded(row: Row, ids: EncodedResponses, tokenizer: PreTrainedTokenizerBase) -> EncodedSteps:
    (response,), start = ids.responses, len(ids.prompt_ids)
    ends = [start + end for end in step_ends(tokenizer, response, row["completions"])]
    labeled = [pair for pair in zip(ends, row["labels"], strict=True) if pair[1] is not None]
    return EncodedSteps(
        [*ids.prompt_ids, *response], [end for end, _ in labeled], [float(x) for _, x in labeled]
    )
