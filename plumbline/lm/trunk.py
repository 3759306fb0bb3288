"""The last hidden states of the decoders we know, by a pass with few operations.

For scoring and for training on a CPU, where transformers' own pass spends more time between the
matrix products than in them. The same mathematics: gradients reach the model's own weights (and
the active adapter's) through the fused ones, which are made again in every pass. Inside autocast
the pass computes in bfloat16 over the model's weights; the residual stream, too.

Shapes: ``B`` rows, ``T`` positions, ``N = B T``, ``D`` width, ``Q`` query heads, ``G`` key heads,
``E`` head size, ``F`` inner width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.lm.backbone import backbone
from plumbline.lm.batches import Batch, position_ids
from plumbline.lm.decoding.snapshot import UnknownLayerError, is_known, plain_weights
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.packing import pack, pack_last
from plumbline.lm.gpu.states import packed_states

#: An adapter is added to its base's weights for the time of a pass, which then holds both. Models
#: of more parameters keep them apart.
MOST_WITH_ADAPTER = 50_000_000
#: Longer texts go to torch's fused attention, whose [T, T] shares are never held.
LONGEST_BY_PRODUCTS = 512


def response_states(model: Any, batch: Batch) -> Tensor:
    """Return the last hidden state before each response token, [B, R, D], normalised.

    The state before the first response token is that after the last prompt token.
    """
    if has_packed_pass(model):
        packing = pack(batch)
        packed = packed_states(model, packing)
        return packing.to(packed.device).unpack(packed)
    width = batch.response_mask.shape[1]
    hidden = states(model, batch.ids, batch.attention_mask, batch.position_ids, last=width + 1)
    return hidden[:, :-1]


def last_states(model: Any, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the last hidden state of each row's last token, [B, D], normalised.

    ``ids`` and ``attention_mask`` are [B, T], padded on the right.
    """
    if has_packed_pass(model):
        return packed_states(model, pack_last(ids, attention_mask))
    # With the padding moved to the left, every last token is in the last column, and the last
    # layer has only that to finish.
    width = ids.shape[1]
    shift = attention_mask.sum(1, keepdim=True)
    columns = (torch.arange(width, device=ids.device) + shift) % width
    ids, mask = ids.gather(1, columns), attention_mask.gather(1, columns)
    return states(model, ids, mask, position_ids(mask), last=1)[:, 0]


def states(
    model: Any, ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *, last: int
) -> Tensor:
    """Return the normalised hidden states [B, last, D] of the last positions.

    ``ids``, ``attention_mask`` and ``position_ids`` are [B, T]. Other models than known
    decoders on a CPU are run as they are.
    """
    trunk = backbone(model)
    if is_supported(model):
        dtype = _number_format(trunk)
        with torch.autocast("cpu", enabled=False):
            known = _states(trunk, ids, attention_mask, position_ids, last, dtype)
        if known is not None:
            return known
    hidden: Tensor = trunk(
        input_ids=ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    return hidden[:, -last:]


def is_supported(model: Any) -> bool:
    """Return whether a model is a known decoder on a CPU, with no dropout to apply."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if whole.device.type != "cpu" or not is_known(whole):
        return False
    if getattr(whole.model, "gradient_checkpointing", False) and whole.training:
        return False
    if whole is not model and sum(p.numel() for p in model.parameters()) > MOST_WITH_ADAPTER:
        return False
    drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    return not (model.training and (drops or getattr(whole.config, "attention_dropout", 0.0)))


def _number_format(trunk: Any) -> torch.dtype:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    dtype: torch.dtype = trunk.embed_tokens.weight.dtype
    return dtype


def _states(
    trunk: Any, ids: Tensor, mask: Tensor, positions: Tensor, last: int, dtype: torch.dtype
) -> Tensor | None:
    length = ids.shape[1]
    if _window(trunk) < length:
        return None
    try:
        layers = [_Layer(layer, dtype) for layer in trunk.layers]
    except UnknownLayerError:
        return None
    embedding, epsilon = trunk.embed_tokens, trunk.norm.variance_epsilon
    x = F.embedding(ids, embedding.weight, embedding.padding_idx).to(dtype)
    cos, sin = trunk.rotary_emb(x, positions)  # [B, T, E]
    # The sines are signed for halves that are swapped. The queries' rotation has the scores' scale.
    half, scale = cos.shape[-1] // 2, layers[0].scale
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    rotations = (cos * scale, sin * scale), (cos, sin)
    attention_bias = _attention_bias(mask, dtype)
    for number, layer in enumerate(layers):
        mixed = _attention(x, layer, rotations, attention_bias, epsilon)
        if number + 1 == len(layers):  # nothing looks at other positions any more
            x, mixed = x[:, -last:], mixed[:, -last:]
        x = _finish(x, mixed, layer, epsilon)
    last_norm: Tensor = trunk.norm.weight
    return _norm(x, epsilon) * last_norm.to(dtype)


class _Layer:
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


def _window(trunk: Any) -> float:
    """Return how far back every layer sees."""
    if trunk.config.model_type == "mistral":
        windows = [trunk.config.sliding_window]
    else:
        windows = [getattr(layer.self_attn, "sliding_window", None) for layer in trunk.layers]
    return min((float(window) for window in windows if window is not None), default=float("inf"))


def _attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to scores, [B, 1, T, T]: minus infinity at what may not be seen.

    A padded position sees itself, which nothing else sees.
    """
    length = mask.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    if bool(mask.all()):
        seen = seen.unsqueeze(0)
    else:
        seen = seen & mask.bool().unsqueeze(1)
        seen |= torch.eye(length, dtype=torch.bool, device=mask.device)
    attention_bias = torch.zeros(seen.shape, dtype=dtype, device=mask.device)
    return attention_bias.masked_fill_(~seen, float("-inf")).unsqueeze(1)


def _attention(
    x: Tensor,
    layer: _Layer,
    rotations: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    attention_bias: Tensor,
    epsilon: float,
) -> Tensor:
    """Return what each head mixes from what it sees, [B, T, Q E], from the residual stream."""
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
    v = v.transpose(1, 2)
    if length > LONGEST_BY_PRODUCTS:
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=attention_bias, scale=1.0, enable_gqa=heads != groups
        )
    else:
        # The query heads of a group are more rows for its keys.
        v = v.reshape(rows * groups, length, size)
        q, k = q.view(rows * groups, -1, size), k.view(rows * groups, length, size)
        scores = torch.bmm(q, k.transpose(1, 2)).view(rows, heads, length, length)
        shares = torch.softmax(scores.add_(attention_bias), dim=-1)
        mixed = torch.bmm(shares.view(rows * groups, -1, length), v)
    return mixed.view(rows, heads, length, size).transpose(1, 2).reshape(rows, length, -1)


def _finish(x: Tensor, mixed: Tensor, layer: _Layer, epsilon: float) -> Tensor:
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
