"""Rows with responses to a prompt as token ids, and what does not fit."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.data.records import Row
from plumbline.dropped import LeftOut
from plumbline.lm.chat import ConversationRefusedError, EncodedResponses, encode_responses
from plumbline.lm.context import LengthLimit, length_limit
from plumbline.lm.load import load_config
from plumbline.lm.model_folder import source_of
from plumbline.training.row_file import RowFile, in_parts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def limit_of(folder: Path, max_length: int) -> LengthLimit:
    """Return what a model in a folder takes: how long a text, and which tokens.

    An adapter may bring rows of its own, so its tokens are not known.
    """
    config, has_adapter = load_config(folder), bool(source_of(folder).adapters)
    rows = None if has_adapter else getattr(config.get_text_config(), "vocab_size", None)
    return length_limit(max_length, config)._replace(rows=rows)


def token_without_row(
    tokenizer: PreTrainedTokenizerBase, limit: LengthLimit, sequences: Iterable[Sequence[int]]
) -> str | None:
    """Return why ids cannot be trained on where the model has no row for one; None where it has.

    Such a token is of the tokenizer alone, as one that was added to it: it would be trained on, or
    with an adapter only read, as the mean of all tokens.
    """
    highest = max((max(ids, default=0) for ids in sequences), default=0)
    if limit.rows is None or highest < limit.rows:
        return None
    token = tokenizer.convert_ids_to_tokens(highest)
    return (
        f"has the token {token!r} (id {highest}), and the model has rows for {limit.rows} tokens: "
        "take it out of the text or the chat template, or resize the model's embeddings"
    )


def _no_problem(row: Row, ids: EncodedResponses) -> None:
    return None


def keep_encoded(
    kept: RowFile,
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    limit: LengthLimit,
    dropped: LeftOut,
    *,
    origin: str,
    responses: Callable[[Row], Sequence[str]],
    columns: Callable[[Row, EncodedResponses], Mapping[str, Any]],
    problem: Callable[[Row, EncodedResponses], str | None] = _no_problem,
) -> int:
    """Write the rows that fit to a file, as ids; leave the others out. Return how many there were.

    ``origin``: of rows that name none. ``responses``: the texts behind a row's prompt.
    ``columns``: what is written of a row. ``problem``: why nothing can be learnt from it, or None.
    """
    if not kept.writes:  # the first process does
        kept.wait()
        return int(kept.notes["read"])
    lengths, number = array("l"), 0
    for part in in_parts(rows):
        texts = [(row["prompt"], responses(row)) for row in part]
        for row, ids in zip(part, encode_responses(tokenizer, texts), strict=True):
            number += 1
            if isinstance(ids, ConversationRefusedError):
                reason: str | None = str(ids)
            else:
                lengths.append(len(ids.prompt_ids) + max(map(len, ids.responses)))
                reason = problem(row, ids) or token_without_row(
                    tokenizer, limit, [ids.prompt_ids, *ids.responses]
                )
                if reason is None and lengths[-1] <= limit.tokens:
                    kept.add(columns(row, ids))
                    continue
            dropped.add(
                row.get("origin", origin), row.get("row", number), reason or limit.reason, row
            )
    advice = limit.advice(lengths)
    dropped.advice.extend([advice] if advice is not None else [])
    kept.notes |= {"read": number, "left_out": dropped.summary()}
    return number
