"""Perplexity of plain texts, as lm-evaluation-harness counts it.

A text is read in windows, each of which predicts as many tokens as the model can read at once. The
first is opened by the beginning-of-sequence token (the end token where there is none), every other
by the last token of the one before; the last, which is shorter, by as much of the text before it as
the model can read with it. Word perplexity divides by the words
between white space and byte perplexity by the UTF-8 bytes, so that models with different
tokenizers can be compared; token perplexity cannot compare them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

#: Where a model does not say how much it can read at once.
_WINDOW = 2048
_SPACE = re.compile(r"\s+")


class TextLikelihood(NamedTuple):
    """What a model says of one text."""

    nats: float
    """Its negative log-probability."""
    tokens: int
    words: int
    bytes: int


def text_likelihoods(
    policy: Policy, texts: Sequence[str], window: int | None = None, batch_size: int = 8
) -> list[TextLikelihood]:
    """Return what a policy says of each text, read as plain text without a chat template.

    ``window``: tokens that are read at once; the model's own limit where it is not given.
    """
    from plumbline.lm.batches import collate
    from plumbline.lm.logprobs import in_parts

    tokenizer = policy.tokenizer
    width = window or _window_of(policy)
    opening = (
        tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    )
    encoded = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    parts = [
        (number, before, part)
        for number, ids in enumerate(encoded)
        for before, part in _windows(ids, int(opening), width)
    ]
    nats = [0.0] * len(texts)
    if parts:
        batch = collate(
            [before for _, before, _ in parts], [part for _, _, part in parts], policy.pad_id
        )
        said = in_parts(lambda rows: policy.logprobs(rows).logprobs, batch, batch_size)
        for (number, _, _), value in zip(parts, said.double().sum(1).tolist(), strict=True):
            nats[number] -= value
    return [
        TextLikelihood(one, len(ids), len(_SPACE.split(text)), len(text.encode()))
        for one, ids, text in zip(nats, encoded, texts, strict=True)
    ]


def perplexities(found: Sequence[TextLikelihood]) -> Mapping[str, float]:
    """Return perplexities over all texts: exp(nats / units), and bits a byte."""
    nats = sum(one.nats for one in found)
    tokens, words, size = (
        sum(getattr(one, unit) for one in found) for unit in ("tokens", "words", "bytes")
    )
    return {
        "token_perplexity": math.exp(nats / tokens),
        "word_perplexity": math.exp(nats / words),
        "byte_perplexity": math.exp(nats / size),
        "bits_per_byte": nats / size / math.log(2),
    }


def _windows(
    ids: Sequence[int], opening: int, width: int
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield what each window is read after, and the window."""
    for start in range(0, len(ids), width):
        end = min(start + width, len(ids))
        yield (ids[end - width - 1 : start] if start else [opening]), ids[start:end]


def _window_of(policy: Policy) -> int:
    config = policy.model.config.get_text_config()
    known = getattr(config, "max_position_embeddings", None)
    return int(known) if known else _WINDOW
