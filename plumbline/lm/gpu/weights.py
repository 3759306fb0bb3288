"""A decoder's own weights and adapters, as the packed pass reads them.

Nothing is copied: the pass casts what it needs while it computes, which costs a GPU little beside
the products, and gradients reach the parameters themselves. Several adapters can be used in one
pass, each by tokens of its own: a role is the name of an adapter, or None for the base alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from plumbline.lm.adapters import Role
from plumbline.lm.decoding.snapshot import UnknownLayerError


class Adapter(NamedTuple):
    """A low-rank addition to a linear layer: scale * second (first x)."""

    first: Tensor
    """[rank, in]."""
    second: Tensor
    """[out, rank]."""
    scale: float
    role: int
    """The number of the role that it belongs to."""


class Linear(NamedTuple):
    """A linear layer with its adapters."""

    weight: Tensor
    """[out, in]."""
    bias: Tensor | None
    """[out]."""
    adapters: tuple[Adapter, ...]


class Layer(NamedTuple):
    """The weights of a decoder's layer."""

    qkv: tuple[Linear, Linear, Linear]
    out: Linear
    gate_up: tuple[Linear, Linear]
    down: Linear
    norm: Tensor
    """[D] scale of the norm before attention."""
    inner_norm: Tensor
    """[D] scale of the norm before the feed-forward part."""
    head_norms: tuple[Tensor, Tensor] | None
    """[E] scales of the norms of queries and of keys."""


def layer_weights(layer: Any, roles: Sequence[Role]) -> Layer:
    """Return a layer's weights for some roles; raise `UnknownLayerError` if one is unusual.

    Without gradients all are plain tensors, so that frozen weights and weights that train are
    read by one compiled layer.
    """
    attention, mlp = layer.self_attn, layer.mlp
    q, k, v, out, gate, up, down = (
        linear(module, roles)
        for module in (
            attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj,
            mlp.gate_proj, mlp.up_proj, mlp.down_proj,
        )
    )  # fmt: skip
    has_norms = hasattr(attention, "q_norm")
    weights = Layer(
        (q, k, v),
        out,
        (gate, up),
        down,
        layer.input_layernorm.weight,
        layer.post_attention_layernorm.weight,
        (attention.q_norm.weight, attention.k_norm.weight) if has_norms else None,
    )
    if torch.is_grad_enabled():
        return weights
    detached: Layer = tree_map_only(Tensor, Tensor.detach, weights)
    return detached


def linear(module: Any, roles: Sequence[Role]) -> Linear:
    """Return a linear layer with the adapters that some roles have on it."""
    if type(module) is nn.Linear:
        return Linear(module.weight, module.bias, ())
    from peft.tuners.lora.layer import Linear as LoraLinear

    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear or module.merged:
        raise UnknownLayerError
    base = module.base_layer
    adapters = []
    for number, role in enumerate(roles):
        if role is None or role not in module.lora_A:
            continue
        first, second = module.lora_A[role], module.lora_B[role]
        drops = getattr(module.lora_dropout[role], "p", 0.0) > 0 and module.training
        if module.lora_variant.get(role) is not None or second.bias is not None or drops:
            raise UnknownLayerError
        adapters.append(Adapter(first.weight, second.weight, module.scaling[role], number))
    return Linear(base.weight, base.bias, tuple(adapters))
