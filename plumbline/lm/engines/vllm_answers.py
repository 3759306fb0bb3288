"""What vLLM said: of one response, checked before the policy learns from it, and of an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from plumbline.errors import ModelError
from plumbline.lm.generation import Generation

if TYPE_CHECKING:
    import httpx


def checked_response(
    who: str,
    ids: Sequence[int] | None,
    logprobs: Sequence[float] | None,
    *,
    ended: bool,
    end_ids: frozenset[int],
) -> Generation:
    """Return a response that vLLM drew.

    ``ids`` and ``logprobs`` have one entry for each token, or are None where ``who`` did not give
    them. ``ended``: whether it says that the response came to its end.

    Raises `ModelError` where entries are missing, no token of the policy's ends the response, or a
    log-probability is not a finite number.
    """
    if ids is None or logprobs is None or len(ids) != len(logprobs):
        raise ModelError(
            f"{who} did not say which tokens it drew and how likely each was: it knows no "
            "return_token_ids, or leaves out logprobs. It needs vLLM 0.10.2 or later."
        )
    if ended and (not ids or ids[-1] not in end_ids):
        raise ModelError(
            f"{who} ended a response at token {ids[-1] if ids else None}, which does not end a "
            f"response of the policy ({sorted(end_ids)} do). Does it serve the same base with the "
            "same tokenizer?"
        )
    if not all(math.isfinite(logprob) for logprob in logprobs):
        raise ModelError(f"{who} gave a log-probability that is not a number.")
    return Generation(list(ids), list(logprobs), ended)


def json_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the answer's object; adapters are answered in plain text."""
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return {}
    content = answer.json()
    return content if isinstance(content, dict) else {}


def message_of(answer: httpx.Response) -> str:
    """Return the words of an error, in either of vLLM's forms."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text.strip()[:300] or answer.reason_phrase
    error = content.get("error", content) if isinstance(content, dict) else content
    words = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
    return str(words)[:300]
