"""Perplexity of plain texts, as in lm-evaluation-harness.

A text is read in windows; each predicts as many tokens as the model can read at once. The first
window follows the beginning-of-sequence token (the end token where there is none), every other one
the last token of the window before. The last window is shorter and follows as much of the text
before it as the model can read with it. Word perplexity divides by the words between white space
and byte perplexity by the UTF-8 bytes, so models with different tokenizers compare; by token
perplexity they do not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy

#: For a model that does not state how much it can read at once.
_WINDOW = 2048
_SPACE = re.compile(r"\s+")


class TextLikelihood(NamedTuple):
    """The likelihood of one text under a model."""

    nats: float
    """The negative log-probability of the text."""
    tokens: int
    words: int
    bytes: int


def text_likelihoods(
    policy: Policy, texts: Sequence[str], window: int | None = None, batch_size: int = 8
) -> list[TextLikelihood]:
    """Return the likelihood of each text under a policy, without a chat template.

    ``window``: tokens that are read at once; by default the limit of the model.
    """
    tokenizer = policy.tokenizer
    width = window or _window_of(policy)
    first_token = (
        tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    )
    encoded = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    parts = [
        (number, before, part)
        for number, ids in enumerate(encoded)
        for before, part in _windows(ids, int(first_token), width)
    ]
    nats = [0.0] * len(texts)
    if parts:
        _, contexts, texts_after = zip(*parts, strict=True)
        logprobs = policy.logprobs_of(contexts, texts_after, batch_size=batch_size)
        for (number, _, _), value in zip(parts, logprobs.double().sum(1).tolist(), strict=True):
            nats[number] -= value
    return [
        TextLikelihood(likelihood, len(ids), len(_SPACE.split(text)), len(text.encode()))
        for likelihood, ids, text in zip(nats, encoded, texts, strict=True)
    ]


def perplexities(likelihoods: Sequence[TextLikelihood]) -> Mapping[str, float]:
    """Return perplexities over all texts, exp(nats / units), and bits per byte."""
    nats = sum(likelihood.nats for likelihood in likelihoods)
    tokens, words, size = (
        sum(getattr(likelihood, unit) for likelihood in likelihoods)
        for unit in ("tokens", "words", "bytes")
    )
    return {
        "token_perplexity": math.exp(nats / tokens),
        "word_perplexity": math.exp(nats / words),
        "byte_perplexity": math.exp(nats / size),
        "bits_per_byte": nats / size / math.log(2),
    }


def _windows(
    ids: Sequence[int], first_token: int, width: int
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Yield the context of each window, and the window."""
    for start in range(0, len(ids), width):
        end = min(start + width, len(ids))
        yield (ids[end - width - 1 : start] if start else [first_token]), ids[start:end]


def _window_of(policy: Policy) -> int:
    config = policy.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return int(positions) if positions else _WINDOW
