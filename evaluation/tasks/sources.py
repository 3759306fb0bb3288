"""Where tasks come from: files, and datasets of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from plumbline.data.examples import Example
from plumbline.data.reader import DataFormatConfig, ExampleReader, ReadReport
from plumbline.data.records import (
    is_held_out,
    iterate_dataset,
    opening,
    problem_with,
    prompt_number,
)
from plumbline.data.sources import Source
from plumbline.data.tasks import Item, Task, unique
from plumbline.data.uses import USES
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.seeds import rng


class TaskFileConfig(DataFormatConfig):
    """Which rows of a file are asked."""

    split: Literal["all", "held_out", "train"] = "all"
    """Rows of which part: all, those that a training with the same share and data seed never sees,
    or those that it does see. The text up to the first response decides, so the split is the same
    everywhere."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that are held out."""
    rows: int | None = Field(None, ge=1)
    """At most this many, drawn at random by the data seed. Null takes all, in the file's order."""
    subset: str | None = None
    """Column with the kind of prompts that a row belongs to. Null: subset or category, if there
    is one."""
    leave_out_bad_rows: bool = False
    """Leave out rows that cannot be read, and count them. False: the first one is an error, since
    a benchmark with rows left out is another benchmark."""


def dataset_task(dataset: Artifact, split: str) -> Task:
    """Return the different prompts of a split of a run's dataset.

    References are its completions: of preferences, the chosen responses.
    """
    items = []
    for row in iterate_dataset(dataset.path, split):
        prompt = row["prompt"] if "prompt" in row else row["messages"][:-1]
        good = row.get("completion") or row.get("chosen") or row.get("messages") or ()
        items.append(Item(prompt, tuple(m["content"] for m in good[-1:]), row.get("subset")))
    return Task(f"{dataset.id}, split {split}", unique(items))


def file_task(file: Source | SourceFile | Path, config: TaskFileConfig, data_seed: int) -> Task:
    """Return the prompts of a file in any format of docs/formats.md, with their references.

    Raises `DataError` with file and row where a row cannot be read, unless ``leave_out_bad_rows``
    is set: a benchmark with rows left out is another benchmark.
    """
    items, report = read_items(file, config)
    items = tuple(item for item in items if _in_split(item, config, data_seed))
    if config.rows is not None and config.rows < len(items):
        random = rng(data_seed, "task", report.origin)
        items = tuple(items[n] for n in sorted(random.sample(range(len(items)), config.rows)))
    if len(items) < 2:
        left_out = report.dropped.summary()
        raise DataError(
            f"{report.origin} holds {len(items)} prompts of the split {config.split!r}, and an "
            "evaluation with its errors needs two. Take another split or file."
            + (f" Left out: {left_out}." if left_out else "")
        )
    return Task(Path(report.origin).stem, items, _notes(report))


def read_items(
    file: Source | SourceFile | Path, config: TaskFileConfig
) -> tuple[tuple[Item, ...], ReadReport]:
    """Read the prompts of a file; rows with the same prompt become one, with all references."""
    reader = _reader(file, config)
    items = []
    for entry in reader:
        item = _item_of(entry.example)
        problem = _problem(item, config)
        if problem is None:
            items.append(item)
        else:
            reader.leave_out(entry, problem)
    different = unique(items)
    reader.report.merged = len(items) - len(different)
    return different, reader.report


def count_prompts(file: Path, config: TaskFileConfig, data_seed: int, most: int) -> int:
    """Return how many different prompts a file has in the split; ``most`` is where counting ends.

    Rows behind the ``most``-th prompt are not read.
    """
    different = set[int]()
    for entry in _reader(file, config):
        item = _item_of(entry.example)
        if _problem(item, config) is None and _in_split(item, config, data_seed):
            different.add(prompt_number(item.prompt))
        if len(different) == most:
            break
    return len(different)


def _reader(file: Source | SourceFile | Path, config: TaskFileConfig) -> ExampleReader:
    return ExampleReader(
        file,
        USES["prompts"],
        config,
        also={"subset": config.subset} if config.subset else {},
        strict=not config.leave_out_bad_rows,
    )


def _in_split(item: Item, config: TaskFileConfig, data_seed: int) -> bool:
    if config.split == "all":
        return True
    held_out = is_held_out(opening(item.prompt), config.held_out_share, data_seed)
    return held_out == (config.split == "held_out")


def _notes(report: ReadReport) -> tuple[str, ...]:
    """Return what is worth saying of how a task was read, rows left out included."""
    left_out = (
        f"left out {count}: {reason} (rows {numbers})"
        for reason, count, numbers in report.dropped.by_reason()
    )
    return (*report.notes(), *left_out)


def _item_of(example: Example) -> Item:
    """Return an example as an item: what a good response says is a reference."""
    references = list(example.references)
    if not references and example.label is not False:
        good = example.response or example.chosen or ()
        references = [text for m in good[-1:] if (text := m["content"]).strip()]
    return Item(example.prompt, tuple(references), example.subset)


def _problem(item: Item, config: TaskFileConfig) -> str | None:
    problem = problem_with(item.prompt)
    if problem is not None:
        return f"has a prompt that {problem}"
    if item.prompt[-1]["role"] == "assistant":
        return "has a prompt that ends with the assistant's turn, so there is nothing to answer"
    if config.subset and item.subset is None:
        return f"has nothing under {config.subset!r} to tell its subset by"
    return None
