"""Responses that were liked or not: as rows, as the sides of pairs, and as ids.

A row has ``prompt``, ``completion`` (both conversations) and ``label``, as TRL's unpaired
preferences have.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from plumbline.data.records import Conversation, Row, prompt_number
from plumbline.dropped import LeftOut
from plumbline.errors import DataError
from plumbline.lm.chat import EncodedResponses
from plumbline.lm.context import LengthLimit
from plumbline.seeds import rng
from plumbline.training.encoded_rows import keep_encoded
from plumbline.training.row_file import Kind, LazyRows, Lists, RowFile, file_in

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

_COLUMNS: dict[str, Kind] = {"prompt_ids": "ids", "response_ids": "ids", "desirable": "flag"}


class LabeledExample(NamedTuple):
    """A response as ids, and whether it was liked."""

    prompt_ids: list[int]
    response_ids: list[int]
    desirable: bool
    mismatched_ids: list[int] | None = None
    """A response to another prompt, by which KTO estimates the KL."""
    reference: tuple[float, ...] | None = None
    """Log-probabilities of the response, and of the mismatched one where there is one, under the
    reference, where they are known before."""

    @property
    def responses(self) -> list[list[int]]:
        """What the reference reads behind the prompt."""
        others = [] if self.mismatched_ids is None else [self.mismatched_ids]
        return [self.response_ids, *others]


# --- Rows. --------------------------------------------------------------------------------------


def unpaired_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield each side of preference rows as a row of its own, the chosen ones liked."""
    for number, row in enumerate(rows, 1):
        for side in ("chosen", "rejected"):
            yield {
                "prompt": row["prompt"],
                "completion": row[side],
                "label": side == "chosen",
                "origin": row.get("origin", "preferences"),
                "row": row.get("row", number),
            }


def paired_rows(rows: Sequence[Row], at_most: int, seed: int, dropped: LeftOut) -> Iterator[Row]:
    """Yield preference rows: a liked response to a prompt against one that was not.

    At most so many for each prompt, drawn at random from all that are possible. Rows of prompts
    whose responses all have one label are counted. Memory holds the rows of one prompt, and some
    tens of bytes of each of the others.
    """
    for number, places in by_prompt(row["prompt"] for row in rows):
        own = [rows[place] for place in places]
        liked, disliked = ([row for row in own if row["label"] is label] for label in (True, False))
        different = [
            (good, bad)
            for good, bad in itertools.product(liked, disliked)
            if good["completion"] != bad["completion"]
        ]
        if not different:
            reason = "its prompt has no other response with the other label"
            for row in own:
                dropped.add(row["origin"], row["row"], reason, row)
            continue
        identity = f"{number:016x}"
        drawn = rng(seed, "pairs of labels", identity).sample(
            different, min(at_most, len(different))
        )
        for place, (good, bad) in enumerate(drawn):
            yield {
                "pair_id": f"{identity}-{place}",
                "prompt": good["prompt"],
                "chosen": good["completion"],
                "rejected": bad["completion"],
                "origin": good["origin"],
                "row": good["row"],
            }


def by_prompt(prompts: Iterable[Conversation]) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each different prompt with its places, in the order of the first ones."""
    numbers = np.fromiter(map(prompt_number, prompts), np.uint64)
    if not len(numbers):
        return
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.append(starts[1:], len(ordered))
    for group in np.argsort(order[starts]):
        places = order[starts[group] : ends[group]]
        yield int(ordered[starts[group]]), places.tolist()


# --- Ids. ---------------------------------------------------------------------------------------


def encode_labeled(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    folder: Path | None = None,
) -> LazyRows[LabeledExample]:
    """Return rows ``prompt``, ``completion`` and ``label`` as ids; others are kept with the reason.

    They are written to a file in ``folder``, and each is read when it is asked for; without a
    folder they are in memory, which is for few rows. Raises `DataError` where responses of only one
    label are left.
    """
    kept = RowFile(_COLUMNS, file_in(folder, "labels.arrow"))
    keep_encoded(
        kept, rows, tokenizer, limit, dropped, origin="labels",
        responses=lambda row: [row["completion"][-1]["content"]], columns=_columns,
    )  # fmt: skip
    table = kept.table()
    liked = int(table["desirable"].to_numpy().sum())
    if not 0 < liked < len(kept):
        raise DataError(
            f"{liked} of {len(kept)} responses that can be trained on were liked; both labels "
            f"are needed. Left out: {kept.notes['left_out'] or 'none'}."
        )
    return _examples_of(table)


def _columns(row: Row, ids: EncodedResponses) -> dict[str, Any]:
    (response,) = ids.responses
    return dict(zip(_COLUMNS, (ids.prompt_ids, response, bool(row["label"])), strict=True))


def _examples_of(table: pa.Table) -> LazyRows[LabeledExample]:
    prompts, responses = Lists(table["prompt_ids"]), Lists(table["response_ids"])
    labels = table["desirable"].to_numpy()

    def read(number: int) -> LabeledExample:
        return LabeledExample(prompts[number], responses[number], bool(labels[number]))

    return LazyRows(len(table), read)


def with_mismatches(
    examples: Sequence[LabeledExample], limit: LengthLimit
) -> LazyRows[LabeledExample]:
    """Return the examples, each with the next response that belongs to another prompt.

    Which one is settled for the whole training, so that the reference can be cached. A response
    that would not fit behind the prompt is cut at its end.

    Raises `DataError` where all examples have one prompt.
    """
    others = _next_of_another_prompt(examples)

    def read(number: int) -> LabeledExample:
        example = examples[number]
        room = max(1, limit.tokens - len(example.prompt_ids))
        mismatched = examples[others[number]].response_ids[:room]
        return example._replace(mismatched_ids=mismatched)

    return LazyRows(len(examples), read)


def _next_of_another_prompt(examples: Sequence[LabeledExample]) -> Sequence[int]:
    """Return for each example the number of the next one, in a circle, with another prompt."""
    count = len(examples)
    first = examples[0].prompt_ids
    start = next((n for n in range(count) if examples[n].prompt_ids != first), None)
    if start is None:
        raise DataError(
            "All labelled responses belong to one prompt, and kto estimates the KL by responses to "
            "other prompts. Give labels on more prompts, or set loss: apo_zero_unpaired"
        )
    # Backwards from the first one whose successor is known to differ: of several behind each other
    # with one prompt all have the same next one.
    others = array("l", bytes(count * array("l").itemsize))
    following, other = start, examples[start].prompt_ids
    for step in range(1, count + 1):
        number = (start - step) % count
        prompt = examples[number].prompt_ids
        others[number] = following if prompt != other else others[following]
        following, other = number, prompt
    return others
