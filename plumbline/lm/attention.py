"""Attention as plain batched matrix products, for short texts on a CPU.

torch's fused attention never holds the [T, T] shares of a head, which is what long texts need. On
a CPU and at the lengths of most responses they fit in the processor's cache, and plain products
are several times faster in bfloat16. Registered with transformers under the name `PRODUCTS`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PRODUCTS = "plumbline_products"
#: Longer texts go to torch's fused attention: their shares would not fit in the cache.
LONGEST = 512


def attention_by_products(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return [B, T, Q, E] from queries [B, Q, T, E], keys and values [B, G, S, E].

    ``attention_mask`` [B, 1, T, S] is added to the scores, or has True where may be looked.
    """
    rows, heads, length, size = query.shape
    span, groups = key.shape[2], key.shape[1]
    if max(length, span) > LONGEST or dropout or attention_mask is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if groups != heads:
        key = key.repeat_interleave(heads // groups, dim=1)
        value = value.repeat_interleave(heads // groups, dim=1)
    dtype = value.dtype  # of what a linear layer says; rotation may have widened the others
    mask = attention_mask.expand(rows, heads, length, span).reshape(rows * heads, length, span)
    if mask.dtype is torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    scores = torch.baddbmm(
        mask.to(dtype),
        query.to(dtype).reshape(rows * heads, length, size),
        key.to(dtype).reshape(rows * heads, span, size).transpose(1, 2),
        alpha=size**-0.5 if scaling is None else scaling,
    )
    shares = torch.softmax(scores, dim=-1)
    mixed = torch.bmm(shares.to(dtype), value.reshape(rows * heads, span, size))
    return mixed.view(rows, heads, length, size).transpose(1, 2), None


def use_products(model: Any) -> bool:
    """Let a model of transformers attend by products; return whether it can.

    Only on a CPU, and only a model that leaves attention to transformers' interface and asks for
    the kind that this one is equal to.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if whole.config._attn_implementation == PRODUCTS:
        return True
    if whole.device.type != "cpu" or whole.config._attn_implementation != "sdpa":
        return False
    if not getattr(whole, "_supports_attention_backend", False):
        return False
    AttentionInterface.register(PRODUCTS, attention_by_products)
    AttentionMaskInterface.register(PRODUCTS, eager_mask)
    whole.set_attn_implementation(PRODUCTS)
    return True
