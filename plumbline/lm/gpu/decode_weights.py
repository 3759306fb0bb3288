"""A decoder's weights for decoding on a GPU: plain matrices at fixed addresses.

The same numbers as in `plumbline.lm.decoding.snapshot`: the active adapter merged in, fused, with
the norms' scales and that of the attention scores folded in. Graphs that were captured read them
at the same addresses after `refresh`, which copies the model's weights of today over them.

What merging costs in bfloat16: W + B A is rounded once, so that a change of less than 1/512 of a
weight may be lost, where the training pass adds the adapter's own product to the base's. These are
two policies a little apart. PPO therefore computes the log-probabilities of responses again, as
training does, and corrects for the difference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plumbline.lm.decoding.snapshot import (
    Snapshot,
    UnknownLayerError,
    head_weights,
    layer_weights,
    take_snapshot,
)
from plumbline.lm.gpu.layers import ACTIVATIONS


class DecodeWeights:
    """A snapshot at fixed addresses."""

    def __init__(self, model: Any, dtype: torch.dtype | None) -> None:
        """Take a model's weights; raise `UnknownLayerError` where it is of no kind that we know."""
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        snapshot = take_snapshot(model, dtype, packed=False)
        if snapshot is None or whole.config.hidden_act not in ACTIVATIONS:
            raise UnknownLayerError
        self.snapshot: Snapshot = snapshot
        self.activation: str = whole.config.hidden_act

    @torch.no_grad()
    def refresh(self, model: Any) -> None:
        """Copy a model's weights over these, a layer at a time."""
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        decoder, held = whole.model, self.snapshot
        for layer, kept in zip(decoder.layers, held.layers, strict=True):
            _copy(kept.tensors(), layer_weights(layer, held.dtype, packed=False).tensors())
        held.embedding.copy_(decoder.embed_tokens.weight)
        held.norm.copy_(decoder.norm.weight)
        _copy(held.head.tensors(), head_weights(whole, held.dtype, packed=False).tensors())

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        held = self.snapshot
        tensors = [held.embedding, held.norm, *held.head.tensors()]
        tensors += [tensor for layer in held.layers for tensor in layer.tensors()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    torch._foreach_copy_(targets, sources)
