"""Responses that were liked or not: as rows, as the sides of pairs, and as ids.

A row has ``prompt``, ``completion`` (both conversations) and ``label``, as TRL's unpaired
preferences have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plumbline.data.records import Conversation, Row, prompt_number
from plumbline.dropped import Dropped, LeftOut
from plumbline.errors import DataError
from plumbline.lm.chat import ConversationRefusedError, encode_response
from plumbline.lm.context import LengthLimit
from plumbline.seeds import rng

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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


def unpaired_rows(rows: Sequence[Row]) -> list[Row]:
    """Return each side of preference rows as a row of its own, the chosen ones liked."""
    return [
        {
            "prompt": row["prompt"],
            "completion": row[side],
            "label": side == "chosen",
            "origin": row.get("origin", "preferences"),
            "row": row.get("row", number),
        }
        for number, row in enumerate(rows, 1)
        for side in ("chosen", "rejected")
    ]


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
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, limit: LengthLimit, dropped: Dropped
) -> list[LabeledExample]:
    """Return rows ``prompt``, ``completion`` and ``label`` as ids; others are kept with the reason.

    Raises `DataError` where responses of only one label are left.
    """
    examples: list[LabeledExample] = []
    lengths = []
    for number, row in enumerate(rows, 1):
        origin, place = row.get("origin", "labels"), row.get("row", number)
        try:
            prompt_ids, ids = encode_response(
                tokenizer, row["prompt"], row["completion"][-1]["content"]
            )
        except ConversationRefusedError as error:
            dropped.add(origin, place, str(error), row)
            continue
        lengths.append(len(prompt_ids) + len(ids))
        if lengths[-1] > limit.tokens:
            dropped.add(origin, place, limit.reason, row)
        else:
            examples.append(LabeledExample(prompt_ids, ids, bool(row["label"])))
    advice = limit.advice(lengths)
    dropped.advice += [advice] if advice is not None else []
    liked = sum(example.desirable for example in examples)
    if not 0 < liked < len(examples):
        raise DataError(
            f"{liked} of {len(examples)} responses that can be trained on were liked; both labels "
            f"are needed. Left out: {dropped.summary() or 'none'}."
        )
    return examples


def with_mismatches(examples: Sequence[LabeledExample], limit: LengthLimit) -> list[LabeledExample]:
    """Return the examples, each with the next response that belongs to another prompt.

    Which one is settled for the whole training, so that the reference can be cached. A response
    that would not fit behind the prompt is cut at its end.

    Raises `DataError` where all examples have one prompt.
    """
    count = len(examples)
    if len({tuple(example.prompt_ids) for example in examples}) < 2:
        raise DataError(
            "All labelled responses belong to one prompt, and kto estimates the KL by responses to "
            "other prompts. Give labels on more prompts, or set loss: apo_zero_unpaired"
        )
    matched: list[LabeledExample] = []
    for number, example in enumerate(examples):
        other = next(
            candidate
            for step in range(1, count)
            if (candidate := examples[(number + step) % count]).prompt_ids != example.prompt_ids
        )
        room = max(1, limit.tokens - len(example.prompt_ids))
        matched.append(example._replace(mismatched_ids=other.response_ids[:room]))
    return matched
