"""Texts of many rows become ids together, which is faster than one after the other.

What encodes a row is a generator. It yields a text where it wants the ids of one, is sent these
ids, and returns the encoded row. `encode_alone` runs one of them; `encode_together` runs many, and
gives the tokenizer the texts of all of them at once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from plumbline.lm.chat_template import ConversationRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
Encoder = Generator[str, list[int], T]
"""Yields texts, is sent their ids, and returns a row."""

#: Texts on which the fast way is compared with the plain one.
_COMPARED = 32
#: Whether a tokenizer's fast way gives the ids of the plain one.
_is_right: WeakKeyDictionary[PreTrainedTokenizerBase, bool] = WeakKeyDictionary()


def ids_of(text: str) -> Encoder[list[int]]:
    """Return the ids of a text that begins a sequence; the template wrote all special tokens."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConversationRefusedError(
            f"holds half a character ({text[error.start]!r}), which has no tokens"
        ) from None
    return (yield text)


def ids_inside(
    tokenizer: PreTrainedTokenizerBase, text: str, anchor: str | None
) -> Encoder[list[int]]:
    """Return the ids of a text in the middle of a sequence.

    Some tokenizers (SentencePiece's) put a space before a text that begins a sequence, and none
    before one that stands behind a special token.
    """
    if anchor is not None:
        ids = yield from ids_of(anchor + text)
        if ids[:1] == [tokenizer.eos_token_id]:
            return ids[1:]
    return (yield from ids_of(text))


def encode_alone(tokenizer: PreTrainedTokenizerBase, encoder: Encoder[T]) -> T:
    """Return the row of one encoder. Raises `ConversationRefusedError`."""
    try:
        text = next(encoder)
        while True:
            text = encoder.send(list(tokenizer(text, add_special_tokens=False)["input_ids"]))
    except StopIteration as end:
        row: T = end.value
        return row


def encode_together(
    tokenizer: PreTrainedTokenizerBase, encoders: Sequence[Encoder[T]]
) -> list[T | ConversationRefusedError]:
    """Return the row of each encoder, or why the template refuses it."""
    rows: dict[int, T | ConversationRefusedError] = {}
    sent: dict[int, list[int] | None] = dict.fromkeys(range(len(encoders)))
    while sent:
        texts: dict[int, str] = {}
        for number, ids in sent.items():
            try:
                encoder = encoders[number]
                texts[number] = next(encoder) if ids is None else encoder.send(ids)
            except StopIteration as end:
                rows[number] = end.value
            except ConversationRefusedError as error:
                rows[number] = error
        sent = dict(zip(texts, _ids_of(tokenizer, list(texts.values())), strict=True))
    return [rows[number] for number in range(len(encoders))]


def _ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text, without any that the tokenizer would add."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not texts or backend is None or backend.truncation or backend.padding:
        return _plain(tokenizer, texts)
    if tokenizer not in _is_right:
        some = texts[:_COMPARED]
        _is_right[tokenizer] = _fast(backend, some) == _plain(tokenizer, some)
    return _fast(backend, texts) if _is_right[tokenizer] else _plain(tokenizer, texts)


def _fast(backend: Any, texts: list[str]) -> list[list[int]]:
    """Return ids alone, without looking where in the text each token stands."""
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]


def _plain(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids
