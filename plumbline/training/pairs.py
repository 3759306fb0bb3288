"""Preference rows as token ids: the prompt and both responses, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from plumbline.data.records import CONVERSATIONS, Row, prompt_id
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.chat import ConversationRefusedError, encode_response
from plumbline.lm.context import LengthLimit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class EncodedPair(NamedTuple):
    """The ids of a preference row, with its columns but for the texts."""

    row: Row
    prompt_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the prompt with the longer response."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def encode_pairs(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, limit: LengthLimit, dropped: Dropped
) -> list[EncodedPair]:
    """Return the pairs of which both sides fit; the others are kept with the reason.

    What is kept of a pair has no texts, and equal ids are one object, so that a million pairs fit
    in memory where ``rows`` are read one after the other.
    """
    kept, lengths, number = [], [], 0
    known: dict[int, int] = {}

    def shared(ids: list[int]) -> list[int]:
        return [known.setdefault(token, token) for token in ids]

    for number, row in enumerate(rows, 1):
        try:
            (prompt_ids, chosen_ids), (other_prompt, rejected_ids) = (
                encode_response(tokenizer, row["prompt"], row[side][-1]["content"])
                for side in ("chosen", "rejected")
            )
        except ConversationRefusedError as error:
            problem: str | None = str(error)
        else:
            columns = {name: value for name, value in row.items() if name not in CONVERSATIONS}
            ids = map(shared, (prompt_ids, chosen_ids, rejected_ids))
            pair = EncodedPair(columns, prompt_id(row["prompt"]), *ids)
            lengths.append(pair.length)
            problem = _problem(pair, other_prompt, limit)
            if problem is None:
                kept.append(pair)
                continue
        dropped.add(row.get("origin", "preferences"), row.get("row", number), problem or "", row)
    advice = limit.advice(lengths)
    dropped.advice += [advice] if advice is not None else []
    if not kept:
        raise DataError(f"None of {number} pairs can be trained on: {dropped.summary()}.")
    return kept


def _problem(pair: EncodedPair, other_prompt: list[int], limit: LengthLimit) -> str | None:
    """Return why nothing can be learnt from a pair, or None."""
    if pair.prompt_ids != other_prompt:
        return "the chat template writes the prompt differently before each of its responses"
    if pair.chosen_ids == pair.rejected_ids:
        return "chosen and rejected are the same"
    return None if pair.length <= limit.tokens else limit.reason
