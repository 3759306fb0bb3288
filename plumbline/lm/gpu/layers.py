"""One decoder layer on packed tokens: a pure function, compiled as one region on a GPU.

Shapes: ``N`` tokens, ``D`` width, ``Q`` query heads, ``G`` key heads, ``E`` head size, ``F`` inner
width. Sums of squares are in float32, all else is in the number format of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.gpu.attention import Layout, packed_attention
from plumbline.lm.gpu.regions import region
from plumbline.lm.gpu.weights import Adapter, Layer, Linear


class Shape(NamedTuple):
    """What a layer is, besides its weights."""

    size: int
    """E."""
    scale: float
    """Of the attention scores."""
    epsilon: float
    window: int | None
    """Tokens that a token sees, itself among them."""
    activation: str
    """A row of `ACTIVATIONS`."""
    kernel: str
    """See `plumbline.lm.gpu.attention.kernel_for`."""


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@region
def decoder_layer(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    token_roles: Tensor | None,
    layout: Layout,
    layer: Layer,
    shape: Shape,
) -> Tensor:
    """Return the residual stream [N, D] after a layer, from that before it.

    ``cos`` and ``sin`` [N, 1, E] rotate by position, ``sin`` with the sign for swapped halves.
    ``token_roles`` [N] is the number of each token's role, where there are several.
    """
    q, k, v = (
        part.view(part.shape[0], -1, shape.size)
        for part in _project(norm(x, layer.norm, shape.epsilon), layer.qkv, token_roles)
    )
    if layer.head_norms is not None:
        of_q, of_k = layer.head_norms
        q, k = norm(q, of_q, shape.epsilon), norm(k, of_k, shape.epsilon)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    mixed = packed_attention(q, k, v, layout, shape.scale, shape.window, shape.kernel).flatten(1)
    (added,) = _project(mixed, (layer.out,), token_roles)
    x = x + added
    gate, up = _project(norm(x, layer.inner_norm, shape.epsilon), layer.gate_up, token_roles)
    inner = ACTIVATIONS[shape.activation](gate) * up
    (added,) = _project(inner, (layer.down,), token_roles)
    return x + added


def norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """Divide by the root mean square over the last dimension, and scale."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return wide.to(x.dtype) * scale.to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys [N, H, E] by their positions."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin


def _project(x: Tensor, layers: Sequence[Linear], token_roles: Tensor | None) -> list[Tensor]:
    """Return the outputs of linear layers on the same x [N, in], each with its adapters.

    The first matrices of all adapters are one product, which is cut into columns by layer.
    """
    outputs = [
        F.linear(
            x, layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)
        )
        for layer in layers
    ]
    adapters = [adapter for layer in layers for adapter in layer.adapters]
    if not adapters:
        return outputs
    first = torch.cat([adapter.first for adapter in adapters]).to(x.dtype)
    low = F.linear(x, first)
    if token_roles is not None:
        low = _own_columns(low, adapters, token_roles)
    start = 0
    for number, layer in enumerate(layers):
        if not layer.adapters:
            continue
        ranks = sum(len(adapter.first) for adapter in layer.adapters)
        second = torch.cat([a.second * a.scale for a in layer.adapters], dim=1).to(x.dtype)
        outputs[number] = outputs[number] + F.linear(low[:, start : start + ranks], second)
        start += ranks
    return outputs


def _own_columns(low: Tensor, adapters: Sequence[Adapter], token_roles: Tensor) -> Tensor:
    """Set an adapter's outputs to 0 at tokens of another role."""
    columns = torch.split(low, [len(adapter.first) for adapter in adapters], dim=1)
    return torch.cat(
        [
            column.masked_fill((token_roles != adapter.role).unsqueeze(1), 0.0)
            for column, adapter in zip(columns, adapters, strict=True)
        ],
        dim=1,
    )
