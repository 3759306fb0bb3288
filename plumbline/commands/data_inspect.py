"""``plumbline data inspect``: a page of a dataset's lengths, languages, copies and samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plumbline.commands.data_check import MEASURED_ROWS, Learnt, encoded, segments
from plumbline.data.reader import DataFormatConfig
from plumbline.data.records import Row, iterate_dataset, number_of_rows
from plumbline.data.sources import source_at
from plumbline.dropped import DroppedFile, count_dropped
from plumbline.errors import ArtifactError, ConfigError, DataError, ModelError
from plumbline.runs.find import find_artifact
from plumbline.seeds import rng
from sft.inspect.content import (
    Content,
    Piece,
    Sample,
    SampleTurn,
    describe,
    histogram,
    summary_of,
    turns_as_written,
)
from sft.versions.history import find_version

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Rows of a dataset that are looked at; a page of more says nothing else.
MOST_ROWS = 50_000
_KINDS = {"demonstrations": ("messages",), "preferences": ("chosen", "rejected")}


class Rows(NamedTuple):
    """The rows of a dataset or file."""

    kind: str
    splits: Mapping[str, Sequence[Row]]
    left_out: Mapping[str, int]
    notes: Sequence[str]


def inspect(
    name: str, use: str, home: Path, model: Path | None, samples: int, config: DataFormatConfig
) -> Content:
    """Return the content of the page of a version, an artefact or a file."""
    if use not in _KINDS:
        raise ConfigError(f"--as is {use!r}; a page is made of {' or '.join(_KINDS)}.")
    rows = _read(name, use, home, config)
    if not any(rows.splits.values()):
        raise DataError(f"{name} has no row that can be read: {dict(rows.left_out)}.")
    content = describe(Path(name).name, rows.kind, rows.splits, rows.left_out)
    content.notes = rows.notes
    entries = [(split, row) for split, part in rows.splits.items() for row in part]
    chosen = rng(0, "samples").sample(range(len(entries)), min(samples, len(entries)))
    shown = [entries[place] for place in sorted(chosen)]
    tokenizer = None if model is None else _tokenizer(model)
    if model is not None and tokenizer is not None:
        _count_tokens(content, rows, tokenizer, model)
    content.samples = [_sample(split, row, rows.kind, tokenizer) for split, row in shown]
    return content


def _read(name: str, use: str, home: Path, config: DataFormatConfig) -> Rows:
    artifact = find_version(home, name) or find_artifact(home, name)
    if artifact is None:
        return _read_file(name, use, config)
    if artifact.kind not in _KINDS:
        raise ArtifactError(
            f"{name!r} is {artifact.id}, whose kind is {artifact.kind!r}. Give "
            f"{' or '.join(_KINDS)}."
        )
    left_out = count_dropped(artifact.path).reasons()
    sizes = {split: number_of_rows(artifact.path, split) for split in ("train", "test")}
    total = sum(sizes.values())
    share = min(1.0, MOST_ROWS / max(1, total))
    splits = {
        split: list(islice(iterate_dataset(artifact.path, split), max(1, int(share * size))))
        for split, size in sizes.items()
    }
    return Rows(artifact.kind, splits, left_out, [artifact.id, *_note(total)])


def _read_file(name: str, use: str, config: DataFormatConfig) -> Rows:
    source = source_at(name)
    if use == "demonstrations":
        from sft.sources import FileDemonstrations

        demonstrations = FileDemonstrations(source, config)
        first, total = _first_of(demonstrations)
        left_out, notes = demonstrations.dropped.reasons(), demonstrations.notes()
        return Rows(use, {source.name: first}, left_out, [*notes, *_note(total)])
    from preference.pairs_config import PreferenceFileConfig
    from preference.sources import PreferenceReader

    settings = {field: getattr(config, field) for field in DataFormatConfig.model_fields}
    reader = PreferenceReader(source, PreferenceFileConfig(**settings), DroppedFile())
    first, total = _first_of(reader)
    report = reader.report
    notes = [*report.notes(), *_note(total)]
    return Rows(use, {source.name: first}, report.dropped.reasons(), notes)


def _first_of(reader: Iterable[Row]) -> tuple[list[Row], int]:
    """Read all rows; return the first of them, and how many there are."""
    rows = iter(reader)
    first = list(islice(rows, MOST_ROWS))
    return first, len(first) + sum(1 for _ in rows)


def _note(total: int) -> list[str]:
    """Return that a page does not show all rows, where it does not."""
    if total <= MOST_ROWS:
        return []
    return [f"This page shows the first {MOST_ROWS:,} rows; what was left out is counted of all."]


def _tokenizer(model: Path) -> PreTrainedTokenizerBase:
    from plumbline.lm.tokenizer import load_tokenizer

    if not model.is_dir():
        raise ModelError(f"There is no model's folder {model} (looked for from {Path.cwd()}).")
    return load_tokenizer(model)


def _count_tokens(
    content: Content, rows: Rows, tokenizer: PreTrainedTokenizerBase, model: Path
) -> None:
    """Add how many tokens rows have, and which rows the template refuses."""
    from plumbline.lm.chat import ConversationRefusedError
    from plumbline.lm.context import context_length
    from plumbline.lm.load import load_config

    lengths: list[int] = []
    refused: Counter[str] = Counter()
    every = (row for part in rows.splits.values() for row in part)
    for row in islice(every, MEASURED_ROWS):
        try:
            lengths.append(
                max(
                    len(ids)
                    for part in _parts(row, rows.kind)
                    for ids, _ in encoded(tokenizer, part)
                )
            )
        except ConversationRefusedError as error:
            refused[str(error)] += 1
    content.tokens, content.token_summary = histogram(lengths), summary_of(lengths)
    content.refused, content.window = dict(refused), context_length(load_config(model))


def _parts(row: Row, kind: str) -> Iterator[Learnt]:
    if kind == "demonstrations":
        yield Learnt("dialogue", row["messages"], 0, row.get("tools"))
    else:
        for side in _KINDS[kind]:
            yield Learnt(side, [*row["prompt"], *row[side]], len(row["prompt"]))


def _sample(split: str, row: Row, kind: str, tokenizer: PreTrainedTokenizerBase | None) -> Sample:
    from plumbline.lm.chat import ConversationRefusedError

    origin = row.get("origin", "")
    title = f"{'' if split == origin else f'{split}: '}{origin} row {row.get('row', '?')}"
    if tokenizer is None:
        prompt = turns_as_written(row, "prompt") if "prompt" in row else []
        sides = {name: [*prompt, *turns_as_written(row, name)] for name in _KINDS[kind]}
        return Sample(title, sides)
    try:
        sides = {
            part.title: [
                SampleTurn("", [Piece(*piece) for piece in segments(tokenizer, ids, mask)])
                for ids, mask in encoded(tokenizer, part)
            ]
            for part in _parts(row, kind)
        }
    except ConversationRefusedError as error:
        sides = {"refused": [SampleTurn("", [Piece(str(error), False)])]}
    return Sample(title, sides)
