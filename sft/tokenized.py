"""Demonstrations as token ids and labels, in a file that the training maps."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Row
from plumbline.dropped import LeftOut
from plumbline.errors import DataError
from plumbline.lm.chat import ConversationRefusedError, EncodedTurns, encode_demonstrations
from plumbline.lm.chat_template import Tool
from plumbline.lm.context import LengthLimit
from plumbline.training.encoded_rows import token_without_row
from plumbline.training.row_file import Kind, Lists, RowFile, in_parts
from sft.answer_batches import (
    NO_WRONG_ANSWERS,
    START,
    WRONG_IDS,
    WRONG_STARTS,
    encode_wrong_answers,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TOKEN_WEIGHTS = "token_weights"
"""The column of the tokenised dataset with the weight of each token in the loss."""
#: The weights of the tokens of a row, and how many tokens in a row have each of them.
_WEIGHTS, _COUNTS = "weights", "weight_counts"
_COLUMNS: Mapping[str, Kind] = {
    "input_ids": "ids", "labels": "ids", _WEIGHTS: "numbers", _COUNTS: "ids",
}  # fmt: skip
_WRONG: Mapping[str, Kind] = {WRONG_IDS: "lists of ids", WRONG_STARTS: "ids", START: "number"}
_NOTHING_LEARNT = "has the weight 0 in each turn of the assistant's, so there is nothing to learn"


def tokenize(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    file: Path | None = None,
    *,
    last_turn_only: bool = False,
    wrong_answers: bool = False,
) -> Dataset:
    """Return ``input_ids`` and ``labels``, -100 wherever nothing is learnt.

    They are written to ``file`` and read from there; without one they are held in memory, which is
    for few rows. ``wrong_answers``: with the columns that compare the last response with wrong
    ones.

    What the assistant says is learnt, but for turns whose ``weight`` is 0. Where a row or a turn
    has another weight, ``token_weights`` are those of the tokens, with mean 1 over all learnt ones.
    """
    kept = RowFile({**_COLUMNS, **(_WRONG if wrong_answers else {})}, file)
    if kept.writes:
        _write(
            kept, rows, tokenizer, limit, dropped,
            last_turn_only=last_turn_only, wrong_answers=wrong_answers,
        )  # fmt: skip
    data = kept.dataset()
    return _with_token_weights(data, _LearntWeights(**kept.notes), file)


def _write(
    kept: RowFile,
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    *,
    last_turn_only: bool,
    wrong_answers: bool,
) -> None:
    """Write the rows that fit, and note the weights of all tokens that are learnt."""
    lengths, number, learnt = array("l"), 0, _LearntWeights()
    for part in in_parts(rows):
        tools = [json.loads(row["tools"]) if row.get("tools") else () for row in part]
        conversations = zip((row["messages"] for row in part), tools, strict=True)
        encoded = encode_demonstrations(tokenizer, conversations, last_turn_only=last_turn_only)
        for row, sequences, of_row in zip(part, encoded, tools, strict=True):
            number += 1
            try:
                if isinstance(sequences, ConversationRefusedError):
                    raise sequences
                examples = _examples(row, sequences)
                if wrong_answers:
                    _add_wrong_answers(examples, tokenizer, row, sequences, of_row)
                lengths.append(max(map(_length, examples)))
                if lengths[-1] > limit.tokens:
                    raise ConversationRefusedError(limit.reason)
                ids = [s for e in examples for s in (e["input_ids"], *e.get(WRONG_IDS, ()))]
                unknown = token_without_row(tokenizer, limit, ids)
                if unknown is not None:
                    raise ConversationRefusedError(unknown)
                for example in _learnt(examples):
                    kept.add(example)
                    learnt.add(example)
            except ConversationRefusedError as error:
                dropped.add(row["origin"], row["row"], str(error), row["messages"])
    advice = limit.advice(lengths)
    dropped.advice.extend([advice] if advice is not None else [])
    if not len(kept):
        raise DataError(f"None of {number} demonstrations can be trained on: {dropped.summary()}.")
    kept.notes |= asdict(learnt)


def _examples(row: Row, sequences: Sequence[EncodedTurns]) -> list[dict[str, Any]]:
    """Return the sequences of a row with labels and weights."""
    if not sequences:
        raise ConversationRefusedError(_NOTHING_LEARNT)
    return [_weighted(row, sequence) for sequence in sequences]


def _add_wrong_answers(
    examples: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    row: Row,
    sequences: Sequence[EncodedTurns],
    tools: Sequence[Tool],
) -> None:
    """Add the columns of wrong answers, which belong to the last sequence of a row."""
    for example in examples:
        example |= NO_WRONG_ANSWERS
    examples[-1] |= encode_wrong_answers(tokenizer, row, sequences[-1], tools)


def _length(example: Mapping[str, Any]) -> int:
    return max(map(len, [example["input_ids"], *example.get(WRONG_IDS, ())]))


def _learnt(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sequences in which something is learnt."""
    learnt = [example for example in examples if any(example[_WEIGHTS])]
    if not learnt:
        raise ConversationRefusedError("has the weight 0")
    return learnt


def _weighted(row: Row, sequence: EncodedTurns) -> dict[str, Any]:
    """Return ids, labels, and the weights of tokens: that of the row times that of their turn."""
    of_row = float(row.get("weight", 1.0))
    labels, weights, counts = list[int](), list[float](), list[int]()
    for turn, tokens in groupby(sequence.turns):
        count, start = len(list(tokens)), len(labels)
        weight = 0.0 if turn < 0 else of_row * float(row["messages"][turn].get("weight", 1.0))
        labels += sequence.ids[start : start + count] if weight else [-100] * count
        weights.append(weight)
        counts.append(count)
    return {"input_ids": sequence.ids, "labels": labels, _WEIGHTS: weights, _COUNTS: counts}


@dataclass
class _LearntWeights:
    """The weights of all tokens that are learnt."""

    sum: float = 0.0
    tokens: int = 0
    least: float = float("inf")
    most: float = 0.0

    def add(self, example: Mapping[str, Any]) -> None:
        for weight, count in zip(example[_WEIGHTS], example[_COUNTS], strict=True):
            if weight:
                self.sum += weight * count
                self.tokens += count
                self.least, self.most = min(self.least, weight), max(self.most, weight)

    @property
    def mean(self) -> float:
        return self.sum / self.tokens


def _with_token_weights(rows: Dataset, learnt: _LearntWeights, file: Path | None) -> Dataset:
    """Return rows whose weights have mean 1 over the tokens that are learnt.

    Where all weights are alike they change nothing, and are left out.
    """
    plain = rows.remove_columns([_WEIGHTS, _COUNTS])
    if learnt.least == learnt.most:
        return plain
    weights, counts = (Lists(rows.data.column(name)) for name in (_WEIGHTS, _COUNTS))
    by_token = (
        chain.from_iterable(map(repeat, weights[number], counts[number]))
        for number in range(len(rows))
    )
    scaled = ([weight / learnt.mean for weight in row] for row in by_token)
    return with_weights(plain, scaled, file)


def with_weights(rows: Dataset, weights: Iterable[list[float]], file: Path | None) -> Dataset:
    """Return rows with the weights of their tokens, which have a file beside the rows' own."""
    from datasets import concatenate_datasets

    beside = None if file is None else file.with_name(f"{file.stem}-weights.arrow")
    column = RowFile({TOKEN_WEIGHTS: "numbers"}, beside)
    for row in weights if column.writes else ():
        column.add({TOKEN_WEIGHTS: row})
    return concatenate_datasets([rows, column.dataset()], axis=1)
