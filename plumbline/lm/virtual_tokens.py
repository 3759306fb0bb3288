"""Passes of models with virtual tokens: a prefix of keys and values, or embeddings before the text.

PEFT's own pass numbers the positions of a padded text by its columns, so that a response would
depend on the batch that it is in. Here positions count what is there, as in every other pass.

Shapes: ``B`` rows, ``V`` virtual tokens, ``T`` positions of the text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_KEYS_AND_VALUES = "PREFIX_TUNING"


def virtual_tokens(model: Any) -> int:
    """Return how many virtual tokens stand before each text; 0 where none do, or none now."""
    configs = getattr(model, "peft_config", None)
    if not configs or getattr(model, "_adapters_disabled", False):
        return 0
    config = configs[model.active_adapter]
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


class Read(NamedTuple):
    """What a model without its virtual tokens is given in their place."""

    base: Any
    """The model without them."""
    inputs: dict[str, Any]
    """``inputs_embeds`` or ``input_ids``, ``attention_mask`` [B, V + T], ``position_ids`` and
    ``past_key_values``."""


def read_with_virtual_tokens(model: Any, ids: Tensor, mask: Tensor) -> Read:
    """Return how the base reads texts [B, T] behind the model's virtual tokens.

    ``mask`` is 1 at tokens, padded on either side.
    """
    config = model.peft_config[model.active_adapter]
    rows, count = len(ids), config.num_virtual_tokens
    whole_mask = torch.cat([mask.new_ones(rows, count), mask], dim=1)
    positions = (whole_mask.long().cumsum(1) - 1).clamp(min=0)
    inputs: dict[str, Any] = {"attention_mask": whole_mask, "position_ids": positions}
    prompt = model.get_prompt(rows)
    if str(getattr(config.peft_type, "value", config.peft_type)) == _KEYS_AND_VALUES:
        inputs |= {"input_ids": ids, "past_key_values": prompt}
        inputs["position_ids"] = positions[:, count:]
    else:
        words = model.word_embeddings(ids)
        inputs["inputs_embeds"] = torch.cat([prompt.to(words.dtype), words], dim=1)
    return Read(model.get_base_model(), inputs)
