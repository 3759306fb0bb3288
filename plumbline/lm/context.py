"""How long a text may be: as a setting says, or the model's own context where that is shorter."""

from __future__ import annotations

from typing import Any, NamedTuple


class LengthLimit(NamedTuple):
    """The most tokens of a text, and what decides it."""

    tokens: int
    reason: str
    """Why a longer row is left out, in words that follow the row's name."""


def context_length(config: Any) -> int | None:
    """Return the most positions that a model was made for; None where it does not say.

    Learned positions end there. Rotary ones continue, beyond what the model was trained for.
    """
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if isinstance(length, int) and length > 0 else None


def length_limit(max_length: int, config: Any) -> LengthLimit:
    """Return what limits a text: the setting ``max_length``, or the context of the model."""
    context = context_length(config)
    if context is not None and context < max_length:
        return LengthLimit(
            context,
            f"is longer than the model's own context ({context} tokens, less than max_length, "
            f"which is {max_length})",
        )
    return LengthLimit(max_length, f"is longer than max_length ({max_length} tokens)")
