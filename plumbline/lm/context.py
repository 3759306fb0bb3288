"""How long a text may be: as a setting says, or the model's own context where that is shorter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

#: A length that is proposed is a multiple of this.
_STEP = 64


class LengthLimit(NamedTuple):
    """The most tokens of a text, and what decides it."""

    tokens: int
    reason: str
    """Why a longer row is left out, in words that follow the row's name."""
    context: int | None = None
    """The model's own context; None where it is not known."""
    rows: int | None = None
    """Tokens that the model has a row for in its embeddings; None where it is not known."""

    def advice(self, lengths: Sequence[int]) -> str | None:
        """Return how many of the rows that are too long fit at which ``max_length``.

        None where none of them is too long, or no setting would let one in.
        """
        within = sorted(n for n in lengths if n > self.tokens and n <= (self.context or n))
        if not within:
            return None
        steps: dict[int, int] = {}
        for share in (0.5, 0.9, 1.0):
            at = math.ceil(within[math.ceil(share * len(within)) - 1] / _STEP) * _STEP
            at = min(at, self.context or at)
            steps[at] = sum(n <= at for n in within)
        fitting = ", ".join(f"max_length {at} lets in {count}" for at, count in steps.items())
        too_long = sum(n > self.tokens for n in lengths)
        never = too_long - len(within)
        rest = f"; {never} are longer than the model's own context ({self.context} tokens)"
        return f"of {too_long} that are too long, {fitting}" + (rest if never else "")


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
            context,
        )
    return LengthLimit(max_length, f"is longer than max_length ({max_length} tokens)", context)
