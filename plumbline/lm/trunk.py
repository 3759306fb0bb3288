"""The last hidden states of the decoders we know, by a pass with few operations.

For scoring and for training on a CPU, where transformers' own pass spends more time between the
matrix products than in them (`plumbline.lm.fused_layers`). Inside autocast the pass computes in
bfloat16 over the model's weights; the residual stream, too.

Shapes: ``B`` rows, ``T`` positions, ``D`` width, ``Q`` query heads, ``G`` key heads, ``E`` head
size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plumbline.lm.adapters import Role, using_adapter
from plumbline.lm.backbone import backbone
from plumbline.lm.batches import Batch, position_ids
from plumbline.lm.decoding.snapshot import is_known
from plumbline.lm.fused_layers import (
    FusedLayer,
    Rotations,
    finish,
    fused_layers,
    last_norm,
    project,
    rotations_of,
)
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.packing import pack, pack_last, side_by_side
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.sharding import in_shares, through_root
from plumbline.lm.virtual_tokens import read_with_virtual_tokens, virtual_tokens

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


def last_states_by_roles(
    model: Any, ids: Tensor, attention_mask: Tensor, roles: Sequence[Role]
) -> list[Tensor]:
    """Return the same for several adapters on one base, one tensor [B, D] for each.

    With packed passes their rows stand beside each other, so that the base's products are computed
    at once; otherwise the adapters read in turn.
    """
    if has_packed_pass(model):
        packing = side_by_side(pack_last(ids, attention_mask), len(roles))
        return list(packed_states(model, packing, roles).chunk(len(roles)))
    states_of_roles = []
    for role in roles:
        with using_adapter(model, role):
            states_of_roles.append(last_states(model, ids, attention_mask))
    return states_of_roles


def states(
    model: Any, ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *, last: int
) -> Tensor:
    """Return the normalised hidden states [B, last, D] of the last positions.

    ``ids``, ``attention_mask`` and ``position_ids`` are [B, T]. Other models than known
    decoders on a CPU are run as they are.
    """
    trunk = backbone(model)
    if virtual_tokens(model):
        base, inputs = read_with_virtual_tokens(model, ids, attention_mask)
        behind: Tensor = base.base_model(**inputs).last_hidden_state
        return behind[:, -last:]
    if is_supported(model):
        dtype = number_format(trunk)
        with torch.autocast("cpu", enabled=False):
            known = _states(trunk, ids, attention_mask, position_ids, last, dtype)
        if known is not None:
            return known
    hidden: Tensor = through_root(
        model,
        lambda: (
            trunk(
                input_ids=ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                use_cache=False,
            ).last_hidden_state
        ),
    )
    return hidden[:, -last:]


def is_supported(model: Any) -> bool:
    """Return whether a model is a known decoder on a CPU, with no dropout to apply."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if whole.device.type != "cpu" or not is_known(whole) or virtual_tokens(model):
        return False
    if in_shares(model):
        return False
    if getattr(whole.model, "gradient_checkpointing", False) and whole.training:
        return False
    if whole is not model and sum(p.numel() for p in model.parameters()) > MOST_WITH_ADAPTER:
        return False
    drops = any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules())
    return not (model.training and (drops or getattr(whole.config, "attention_dropout", 0.0)))


def number_format(trunk: Any) -> torch.dtype:
    """Return the number format of a pass on a CPU: that of autocast, or of the weights."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    dtype: torch.dtype = trunk.embed_tokens.weight.dtype
    return dtype


def _states(
    trunk: Any, ids: Tensor, mask: Tensor, positions: Tensor, last: int, dtype: torch.dtype
) -> Tensor | None:
    length = ids.shape[1]
    if min(windows_of(trunk)) < length:
        return None
    layers = fused_layers(trunk, dtype)
    if layers is None:
        return None
    embedding, epsilon = trunk.embed_tokens, trunk.norm.variance_epsilon
    x = F.embedding(ids, embedding.weight, embedding.padding_idx).to(dtype)
    rotations = rotations_of(trunk, x, positions, layers[0].scale)
    attention_bias = _attention_bias(mask, dtype)
    for number, layer in enumerate(layers):
        mixed = _attention(x, layer, rotations, attention_bias, epsilon)
        if number + 1 == len(layers):  # nothing looks at other positions any more
            x, mixed = x[:, -last:], mixed[:, -last:]
        x = finish(x, mixed, layer, epsilon)
    return last_norm(x, trunk)


def windows_of(trunk: Any) -> list[float]:
    """Return how far back each layer sees, in tokens, itself among them."""
    if trunk.config.model_type == "mistral":
        windows = [trunk.config.sliding_window] * len(trunk.layers)
    else:
        windows = [getattr(layer.self_attn, "sliding_window", None) for layer in trunk.layers]
    return [float("inf") if window is None else float(window) for window in windows]


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
    layer: FusedLayer,
    rotations: Rotations,
    attention_bias: Tensor,
    epsilon: float,
) -> Tensor:
    """Return what each head mixes from what it sees, [B, T, Q E], from the residual stream."""
    rows, length, _ = x.shape
    size, heads, groups = layer.size, layer.heads, layer.groups
    q, k, v = project(x, layer, rotations, epsilon)
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
