"""Packed passes inside transformers' own models, for trainers that call the whole model.

The decoder without its head gets a ``forward`` that packs the rows, and returns the last hidden
states as transformers does. Heads, losses and metrics of a trainer stay as they are. Calls that ask
for anything else (a cache, embeddings as input, attention weights) go the plain way.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.backbone import backbone
from plumbline.lm.gpu.checks import PLAIN_FORWARD, has_packed_pass
from plumbline.lm.gpu.packing import pack_padded
from plumbline.lm.gpu.states import packed_states

_ELSEWHERE = (
    "inputs_embeds",
    "past_key_values",
    "use_cache",
    "output_hidden_states",
    "output_attentions",
)


def use_packed_backbone(model: Any, *, anywhere: bool = False) -> None:
    """Let a model read rows by packed passes wherever it is called, from now on.

    Whether it may is looked at in each call, so that this does no harm to a model that has no
    packed pass. ``anywhere``: on a CPU, too, for tests.
    """
    trunk = backbone(model)
    if hasattr(trunk, PLAIN_FORWARD):
        return
    plain = trunk.forward
    setattr(trunk, PLAIN_FORWARD, plain)

    @functools.wraps(plain)
    def forward(input_ids: Tensor | None = None, *more: Any, **options: Any) -> Any:
        mask = options.get("attention_mask")
        usual = input_ids is not None and not more and options.get("position_ids") is None
        usual = usual and (mask is None or mask.dim() == 2)
        usual = usual and not any(options.get(name) for name in _ELSEWHERE)
        if usual and has_packed_pass(model, anywhere=anywhere):
            return _read(trunk, model, input_ids, mask)  # type: ignore[arg-type]
        return plain(input_ids, *more, **options)

    trunk.forward = forward


def _read(trunk: Any, model: Any, ids: Tensor, mask: Tensor | None) -> Any:
    from transformers.modeling_outputs import BaseModelOutputWithPast

    packing = pack_padded(ids, torch.ones_like(ids) if mask is None else mask)
    checkpointing = bool(getattr(trunk, "gradient_checkpointing", False)) and trunk.training
    states = packed_states(model, packing, checkpointing=checkpointing)
    return BaseModelOutputWithPast(last_hidden_state=packing.to(states.device).unpack(states))
