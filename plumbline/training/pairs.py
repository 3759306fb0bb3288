"""Preference rows as token ids: the prompt and both responses, and what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plumbline.data.records import CONVERSATIONS, Row, prompt_id
from plumbline.dropped import LeftOut
from plumbline.errors import DataError
from plumbline.lm.chat import EncodedResponses
from plumbline.lm.context import LengthLimit
from plumbline.training.encoded_rows import keep_encoded
from plumbline.training.row_file import Kind, LazyRows, Lists, RowFile, Texts, file_in

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

_COLUMNS: dict[str, Kind] = {
    "row": "object", "prompt_id": "text",
    "prompt_ids": "ids", "chosen_ids": "ids", "rejected_ids": "ids",
}  # fmt: skip
_SIDES = ("chosen", "rejected")


class EncodedPair(NamedTuple):
    """The ids of a preference row, with its columns but for the texts."""

    row: Row
    prompt_id: str
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


def encode_pairs(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    folder: Path | None = None,
) -> LazyRows[EncodedPair]:
    """Return the pairs of which both sides fit; the others are kept with the reason.

    What is kept of a pair has no texts. Pairs are written to a file in ``folder``, and each is read
    when it is asked for; without a folder they are in memory, which is for few pairs.
    """
    kept = RowFile(_COLUMNS, file_in(folder, "pairs.arrow"))
    number = keep_encoded(
        kept, rows, tokenizer, limit, dropped, origin="preferences",
        responses=lambda row: [row[side][-1]["content"] for side in _SIDES],
        columns=_columns, problem=_problem,
    )  # fmt: skip
    if not len(kept):
        raise DataError(f"None of {number} pairs can be trained on: {dropped.summary()}.")
    return _pairs_of(kept.table())


def _problem(row: Row, ids: EncodedResponses) -> str | None:
    """Return why nothing can be learnt from a pair, or None."""
    chosen, rejected = ids.responses
    return "chosen and rejected are the same" if chosen == rejected else None


def _columns(row: Row, ids: EncodedResponses) -> dict[str, Any]:
    chosen, rejected = ids.responses
    return {
        "row": {name: held for name, held in row.items() if name not in CONVERSATIONS},
        "prompt_id": prompt_id(row["prompt"]),
        "prompt_ids": ids.prompt_ids,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
    }


def _pairs_of(table: pa.Table) -> LazyRows[EncodedPair]:
    rows, prompt_ids = Texts(table["row"]), Texts(table["prompt_id"])
    ids = [Lists(table[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]

    def read(number: int) -> EncodedPair:
        return EncodedPair(
            json.loads(rows[number]), prompt_ids[number], *(column[number] for column in ids)
        )

    return LazyRows(len(table), read)
