"""Log-probabilities of responses by packed passes."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from plumbline.lm.adapters import ACTIVE, Role, active_adapter
from plumbline.lm.gpu.head import head_logprobs
from plumbline.lm.gpu.packing import Packing
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.gpu.weights import Linear, linear


class PackedLogprobs(NamedTuple):
    """The result of a role's pass, for the response tokens of a packing."""

    states: Tensor
    """[M, D] the last hidden states before them."""
    logprobs: Tensor
    """[M]."""
    entropy: Tensor
    """[M]."""


def packed_logprobs(
    model: Any,
    packing: Packing,
    role: Role,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
    checkpointing: bool = False,
) -> PackedLogprobs:
    """Return the log-probability of every response token of a packing, under one role."""
    states = packed_states(model, packing, (role,), checkpointing=checkpointing)
    return logprobs_of_states(
        model, states, packing, role, temperature, entropy_gradient=entropy_gradient
    )


def logprobs_of_states(
    model: Any,
    states: Tensor,
    packing: Packing,
    role: Role,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
) -> PackedLogprobs:
    """Return the same from states [M, D] that were computed before."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    role = active_adapter(model) if role == ACTIVE else role
    weight, bias = merged(linear(whole.get_output_embeddings(), (role,)))
    ids = packing.to(states.device).response_ids
    logprobs, entropy = head_logprobs(
        states, weight, bias, ids, temperature, entropy_gradient=entropy_gradient
    )
    return PackedLogprobs(states, logprobs, entropy)


def merged(layer: Linear) -> tuple[Tensor, Tensor | None]:
    """Return a layer's weight with its adapter added, which few heads have, and its bias."""
    weight = layer.weight
    for adapter in layer.adapters:
        weight = weight + (adapter.second @ adapter.first).to(weight.dtype) * adapter.scale
    return weight, layer.bias
