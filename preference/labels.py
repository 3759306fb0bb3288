"""Responses that were liked or not, as ids, and the sides of pairs as such responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.records import Row
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.chat import ConversationRefusedError, encode_response
from plumbline.lm.context import LengthLimit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LabeledExample(NamedTuple):
    """A response as ids, and whether it was liked."""

    prompt_ids: list[int]
    response_ids: list[int]
    desirable: bool


def unpaired_rows(rows: Sequence[Row]) -> list[Row]:
    """Return each side of preference rows as a row of its own, the chosen ones liked."""
    return [
        {
            "prompt": row["prompt"],
            "response": row[side],
            "label": side == "chosen",
            "origin": row.get("origin", "preferences"),
            "row": row.get("row", number),
        }
        for number, row in enumerate(rows, 1)
        for side in ("chosen", "rejected")
    ]


def encode_labeled(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, limit: LengthLimit, dropped: Dropped
) -> list[LabeledExample]:
    """Return rows ``prompt``, ``response`` and ``label`` as ids; others are kept with the reason.

    Raises `DataError` where responses of only one label are left.
    """
    examples: list[LabeledExample] = []
    for row in rows:
        try:
            prompt_ids, ids = encode_response(
                tokenizer, row["prompt"], row["response"][-1]["content"]
            )
        except ConversationRefusedError as error:
            dropped.add(row["origin"], row["row"], str(error), row)
            continue
        if len(prompt_ids) + len(ids) > limit.tokens:
            dropped.add(row["origin"], row["row"], limit.reason, row)
        else:
            examples.append(LabeledExample(prompt_ids, ids, bool(row["label"])))
    liked = sum(example.desirable for example in examples)
    if not 0 < liked < len(examples):
        raise DataError(
            f"{liked} of {len(examples)} responses that can be trained on were liked; both labels "
            f"are needed. Left out: {dropped.summary() or 'none'}."
        )
    return examples
