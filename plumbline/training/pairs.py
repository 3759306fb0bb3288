"""Preference rows as token ids: the prompt and both responses, and what does not fit."""

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
    """A preference row and its ids."""

    row: Row
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def ids(self) -> dict[str, list[int]]:
        """The row that a trainer of policies reads."""
        return {
            "prompt_ids": self.prompt_ids,
            "chosen_ids": self.chosen_ids,
            "rejected_ids": self.rejected_ids,
        }


def encode_pairs(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, dropped: Dropped
) -> list[EncodedPair]:
    """Return the pairs of which both sides fit; the others are kept with the reason."""
    kept = []
    for number, row in enumerate(rows, 1):
        (prompt_ids, chosen_ids), (_, rejected_ids) = (
            encode_response(tokenizer, row["prompt"], row[side][-1]["content"])
            for side in ("chosen", "rejected")
        )
        if len(prompt_ids) + max(len(chosen_ids), len(rejected_ids)) > max_length:
            reason = f"is longer than max_length ({max_length} tokens)"
            dropped.add(row.get("origin", "preferences"), row.get("row", number), reason, row)
        else:
            kept.append(EncodedPair(row, prompt_ids, chosen_ids, rejected_ids))
    if not kept:
        raise DataError(
            f"None of {len(rows)} pairs fits into max_length ({max_length} tokens). Raise it."
        )
    return kept
