"""Where tasks come from: the embedded world, files, and datasets of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from evaluation.tasks.task import Item, Task, unique
from plumbline.config import Config
from plumbline.data.files import conversation_of, read_records
from plumbline.data.records import Conversation, is_held_out, problem_with, read_dataset, user
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import SourceFile
from plumbline.seeds import rng
from plumbline.world.clerks import Style, answer
from plumbline.world.data import prompts
from plumbline.world.requests import read
from plumbline.world.shop import Shop


class TaskFileConfig(Config):
    """Which rows of a file are asked."""

    split: Literal["all", "held_out", "train"] = "all"
    """Rows of which part: all, those that a training with the same share and data seed never sees,
    or those that it does see. The prompt's text decides, so the split is the same everywhere."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that are held out."""
    rows: int | None = Field(None, ge=1)
    """At most this many, drawn at random by the data seed. Null takes all, in the file's order."""
    subset: str | None = None
    """Column that says to which kind of prompts a row belongs. Null: subset or category, if there
    is one."""


def world_task(data_seed: int, count: int, share: str = "heldout") -> Task:
    """Return prompts of the embedded world with what a faultless clerk would have answered."""
    shop = Shop.from_seed(data_seed)
    items = []
    for prompt in prompts(data_seed, count, share):
        request = read(prompt)
        assert request is not None
        items.append(Item(prompt, (answer(shop, prompt, Style()),), request.kind))
    return Task("the shop's help desk", tuple(items))


def dataset_task(dataset: Artifact, split: str) -> Task:
    """Return the different prompts of a split of a run's dataset.

    References are its completions: of preferences, the chosen responses.
    """
    items = [
        _item(row, f"{dataset.id}, split {split!r}, row {number}", None)
        for number, row in enumerate(read_dataset(dataset.path, split), 1)
    ]
    return Task(f"{dataset.id}, split {split}", unique(items))


def file_task(file: SourceFile, config: TaskFileConfig, data_seed: int) -> Task:
    """Return the prompts of a ``.json``, ``.jsonl`` or ``.parquet`` file.

    A row is read by its keys; the first of these that it has decides:

    ===============================  ==========================================================
    keys                             prompt and references
    ===============================  ==========================================================
    ``context``, ``question``        SQuAD: the passage and the question; ``answers`` (its texts)
    ``question``                     GSM8K: the question; ``answer``
    ``turns``                        MT-Bench: the first turn; ``reference``
    ``instruction``                  Alpaca: with ``input``; ``output``
    ``messages``, ``conversations``  everything before the last answer; that answer
    ``prompt``                       text or messages; ``references``, ``reference``,
                                     ``completion``, ``chosen`` or ``answer``
    ``chosen``                       both dialogues' common part; the chosen answer
    ===============================  ==========================================================

    Rows with the same prompt become one, with the references of both. Raises `DataError` with file
    and row where a row is none of these: a benchmark with rows left out is another benchmark.
    """
    name = file.path.name
    items = unique(
        _item(record, f"{name}, row {number}", config.subset)
        for number, record in read_records(file.path)
    )
    if config.split != "all":
        held_out = config.split == "held_out"
        items = tuple(
            item
            for item in items
            if is_held_out(item.prompt, config.held_out_share, data_seed) == held_out
        )
    if config.rows is not None and config.rows < len(items):
        random = rng(data_seed, "task", name)
        items = tuple(items[n] for n in sorted(random.sample(range(len(items)), config.rows)))
    if len(items) < 2:
        raise DataError(
            f"{file.path} holds {len(items)} prompts of the split {config.split!r}, and an "
            "evaluation with its errors needs two. Take another split or file."
        )
    return Task(file.path.stem, items)


def _item(record: Mapping[str, Any], where: str, subset: str | None) -> Item:
    try:
        prompt, references = _read(record)
    except ValueError as problem:
        raise DataError(f"{where}: {problem}.") from None
    problem_found = problem_with(prompt)
    if problem_found is not None:
        raise DataError(f"{where}: the prompt {problem_found}.")
    if prompt[-1]["role"] == "assistant":
        raise DataError(
            f"{where}: the prompt ends with the assistant's turn, so there is nothing to answer."
        )
    kind = record.get(subset) if subset else record.get("subset", record.get("category"))
    if subset and kind is None:
        raise DataError(f"{where}: there is no column {subset!r} to tell its subset by.")
    return Item(prompt, tuple(references), None if kind is None else str(kind))


def _read(record: Mapping[str, Any]) -> tuple[Conversation, list[str]]:
    """Return prompt and references; raise `ValueError` with the reason where there are none."""
    if "context" in record and "question" in record:
        answers = record.get("answers") or record.get("answer")
        passage = f"{_text(record, 'context')}\n\n{_text(record, 'question')}"
        return [user(passage)], _references(
            answers.get("text") if isinstance(answers, Mapping) else answers
        )
    if "question" in record:
        return [user(_text(record, "question"))], _references(record.get("answer"))
    if "turns" in record:
        return [user(str(record["turns"][0]))], _references(record.get("reference"))
    if "instruction" in record:
        more = str(record.get("input") or "").strip()
        text = _text(record, "instruction") + (f"\n\n{more}" if more else "")
        return [user(text)], _references(record.get("output"))
    for key in ("messages", "conversations"):
        if key in record:
            return _before_the_answer(conversation_of(record[key]))
    if record.get("prompt") is not None:
        prompt = record["prompt"]
        turns = [user(prompt)] if isinstance(prompt, str) else conversation_of(prompt)
        keys = ("references", "reference", "completion", "chosen", "answer")
        return turns, _references(next((record[k] for k in keys if record.get(k)), None))
    if not isinstance(record.get("chosen"), str | None):
        return _before_the_answer(conversation_of(record["chosen"]))
    raise ValueError(
        f"it has the keys {', '.join(sorted(record)) or 'of no column'}, which are of no known "
        "format. A row needs a 'prompt' (text or messages) and may have 'references'"
    )


def _before_the_answer(messages: Conversation) -> tuple[Conversation, list[str]]:
    if messages and messages[-1]["role"] == "assistant":
        return messages[:-1], [messages[-1]["content"]]
    return messages, []


def _references(value: Any) -> list[str]:
    """Return references given as a text, as messages, or as several of these."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
        return [conversation_of(value)[-1]["content"]]
    if isinstance(value, Sequence):
        return [text for part in value for text in _references(part)]
    if isinstance(value, int | float):
        return [str(value)]
    raise ValueError(f"its references are {type(value).__name__}, not text")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise ValueError(f"it has {type(value).__name__} under {key!r}, not text")
    return value
