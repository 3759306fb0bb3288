"""Preference rows as token ids: both sides with their prompt, and what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.records import Row
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.chat import encode_response

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPair(NamedTuple):
    """A preference row and its ids; each side stands behind its prompt."""

    row: Row
    chosen: list[int]
    rejected: list[int]


def encode_pairs(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, dropped: Dropped
) -> list[EncodedPair]:
    """Return the pairs of which both sides fit; the others are kept with the reason."""
    kept = []
    for number, row in enumerate(rows, 1):
        sides = [
            [*prompt, *answer]
            for prompt, answer in (
                encode_response(tokenizer, row["prompt"], row[side][-1]["content"])
                for side in ("chosen", "rejected")
            )
        ]
        if max(map(len, sides)) > max_length:
            reason = f"is longer than max_length ({max_length} tokens)"
            dropped.add(row.get("origin", "preferences"), row.get("row", number), reason, row)
        else:
            kept.append(EncodedPair(row, *sides))
    if not kept:
        raise DataError(
            f"None of {len(rows)} pairs fits into max_length ({max_length} tokens). Raise it."
        )
    return kept
