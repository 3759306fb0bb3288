"""The decoder inside a language model or a classifier, with its adapters and without its head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def backbone(model: Any) -> Any:
    """Return the decoder without its language-model head; adapters in it stay in place."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return whole.base_model


@contextmanager
def last_hidden_states(model: Any) -> Iterator[list[Tensor]]:
    """Note the last hidden states [B, T, D] of each pass through a model, as its head reads them.

    Nothing else of the pass is kept, unlike with transformers' ``output_hidden_states``.
    """
    seen: list[Tensor] = []
    hook = backbone(model).register_forward_hook(lambda *call: seen.append(call[-1][0]))
    try:
        yield seen
    finally:
        hook.remove()
