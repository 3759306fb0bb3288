"""The layers of the decoders we know, for a CPU: few operations, with gradients written by hand.

The same mathematics as transformers' own: gradients reach the model's own weights (and the active
adapter's) through the fused ones, which are made again in every pass.

Shapes: ``B`` rows, ``T`` positions, ``N = B T``, ``D`` width, ``Q`` query heads, ``G`` key heads,
``E`` head size, ``F`` inner width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.decoding.snapshot import UnknownLayerError, plain_weights

Rotations = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Cosines and sines [B, T, E] for the queries, with the scale of the scores, and for the keys."""


class FusedLayer:
    """A layer's weights in one number format, as functions of the model's own.

    Queries, keys and values are one matrix, gate and up another, with the scale of the norm before
    them. Matrices are [out, in], as in `torch.nn.Linear`.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.size, self.scale = int(attention.head_dim), float(attention.scaling)
        self.qkv = _fused(
            [attention.q_proj, attention.k_proj, attention.v_proj], layer.input_layernorm, dtype
        )
        self.out = _fused([attention.o_proj], None, dtype)
        self.gate_up = _fused([mlp.gate_proj, mlp.up_proj], layer.post_attention_layernorm, dtype)
        self.down = _fused([mlp.down_proj], None, dtype)
        self.activation = mlp.act_fn
        self.heads = self.out[0].shape[1] // self.size
        self.groups = (len(self.qkv[0]) // self.size - self.heads) // 2
        self.head_norms: Tensor | None = None
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm.weight.to(dtype), attention.k_norm.weight.to(dtype)
            self.head_norms = torch.cat([q.expand(self.heads, -1), k.expand(self.groups, -1)])


def fused_layers(trunk: Any, dtype: torch.dtype) -> list[FusedLayer] | None:
    """Return a decoder's layers, or None where one has a part that we do not know."""
    try:
        return [FusedLayer(layer, dtype) for layer in trunk.layers]
    except UnknownLayerError:
        return None


def rotations_of(trunk: Any, x: Tensor, positions: Tensor, scale: float) -> Rotations:
    """Return what rotates queries and keys at ``positions`` [B, T], in the number format of x.

    The sines are signed for halves that are swapped. The queries' rotation has the scores' scale.
    """
    cos, sin = trunk.rotary_emb(x, positions)
    half = cos.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return (cos * scale, sin * scale), (cos, sin)


def project(
    x: Tensor, layer: FusedLayer, rotations: Rotations, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries [B, Q, T, E], keys and values [B, G, T, E] of a residual stream [B, T, D]."""
    rows, length, width = x.shape
    size, heads, groups = layer.size, layer.heads, layer.groups
    normed = _norm(x, epsilon)
    qkv = F.linear(normed.view(-1, width), *layer.qkv).view(rows, length, -1, size)
    if layer.head_norms is None:
        q, k, v = torch.split(qkv, [heads, groups, groups], dim=2)
    else:
        qk, v = torch.split(qkv, [heads + groups, groups], dim=2)
        qk = _norm(qk, epsilon) * layer.head_norms
        q, k = torch.split(qk, [heads, groups], dim=2)
    q, k = (
        _apply_rotary(part, *rotation) for part, rotation in zip((q, k), rotations, strict=True)
    )
    return q, k, v.transpose(1, 2)


def last_norm(x: Tensor, trunk: Any) -> Tensor:
    """Return hidden states after the norm behind the last layer."""
    weight: Tensor = trunk.norm.weight
    return _norm(x, trunk.norm.variance_epsilon) * weight.to(x.dtype)


def finish(x: Tensor, mixed: Tensor, layer: FusedLayer, epsilon: float) -> Tensor:
    """Return the layer's result [B, T, D] from its input and what attention mixed."""
    shape = x.shape
    x = _added(x.reshape(-1, shape[-1]), mixed.reshape(shape[0] * shape[1], -1), *layer.out)
    normed = _norm(x, epsilon)
    gate_up = F.linear(normed, *layer.gate_up)
    if type(layer.activation).__name__ in ("SiLU", "SiLUActivation"):
        inner = _gated(gate_up)
    else:
        gate, up = gate_up.chunk(2, dim=-1)
        inner = layer.activation(gate) * up
    return _added(x, inner, *layer.down).view(shape)


def _fused(layers: list[Any], norm: Any | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return linear layers as one matrix [out, in], with the scale of a norm; and their biases."""
    plain = [plain_weights(layer) for layer in layers]
    matrix = torch.cat([weight for weight, _ in plain]) if len(plain) > 1 else plain[0][0]
    if norm is not None:
        matrix = matrix * norm.weight
    if all(bias is None for _, bias in plain):
        return matrix.to(dtype), None
    biases = [w.new_zeros(len(w)) if bias is None else bias for w, bias in plain]
    return matrix.to(dtype), torch.cat(biases).to(dtype)


def _added(x: Tensor, inner: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    total = torch.addmm(x, inner, matrix.t())
    return total if bias is None else total + bias


def _norm(x: Tensor, epsilon: float) -> Tensor:
    """See `_Norm`."""
    return _Norm.apply(x, epsilon)  # type: ignore[no-untyped-call, no-any-return]


def _apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `_Rotary`."""
    return _Rotary.apply(x, cos, sin)  # type: ignore[no-untyped-call, no-any-return]


def _gated(gate_up: Tensor) -> Tensor:
    """See `_Gated`."""
    return _Gated.apply(gate_up)  # type: ignore[no-untyped-call, no-any-return]


class _Norm(torch.autograd.Function):
    """x / rms(x) over the last dimension; the scale is in the weights of what reads it.

    With y the result, d its gradient and r = 1 / rms: dx = r (d - y mean(d y)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        y = F.rms_norm(x, x.shape[-1:], None, epsilon)
        ctx.save_for_backward(x, y)
        ctx.epsilon = epsilon
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        width = x.shape[-1]
        exact = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        scale = norm.square_().div_(width).add_(ctx.epsilon).rsqrt_().to(x.dtype)
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1).div_(width)
        return torch.addcmul(gradient, y, along, value=-1).mul_(scale), None


class _Rotary(torch.autograd.Function):
    """Rotate queries or keys [B, T, H, E] by their positions; laid out as [B, H, T, E].

    ``cos`` and ``sin`` are [B, T, E]; ``sin`` with the sign for swapped halves. A rotation's
    gradient is rotated back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        rows, length, heads, size = x.shape
        rotated = x.new_empty(rows, heads, length, size)
        _rotate(x.transpose(1, 2), cos.unsqueeze(1), sin.unsqueeze(1), rotated)
        return rotated

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        rows, heads, length, size = gradient.shape
        back = gradient.new_empty(rows, length, heads, size)
        _rotate(gradient, cos.unsqueeze(1), -sin.unsqueeze(1), back.transpose(1, 2))
        return back, None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    half = x.shape[-1] // 2
    torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half])
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])


class _Gated(torch.autograd.Function):
    """silu(gate) * up, from [N, 2 F] with both side by side.

    With s = sigmoid(gate) and t = s gate = silu(gate): dt / dgate = s + t - s t. The exponentials
    in s cost more than all else here, so s is kept.
    """

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        share = torch.sigmoid(gate)
        ctx.save_for_backward(gate_up, share)
        return (share * gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gate_up, share = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_up)
        of_gate, of_up = result.chunk(2, dim=-1)
        gated = share * gate
        torch.mul(gated, gradient, out=of_up)
        slope = (share + gated).addcmul_(gated, share, value=-1)
        torch.mul(slope.mul_(up), gradient, out=of_gate)
        return result
