"""Causal attention within each sequence of a packing.

On a GPU by torch's kernel for sequences of different lengths, which takes 16-bit numbers; elsewhere
in a rectangle [S, longest] of padded sequences. Padding stands behind a sequence, where a causal
mask keeps it from being seen, so that no other mask is needed.

Shapes: ``N`` tokens, ``S`` sequences, ``Q`` query heads, ``G`` key heads, ``E`` head size.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.gpu.packing import Packing
from plumbline.lm.gpu.regions import free_rows

#: torch's kernel, once `kernel_for` has looked for it: its import takes two seconds, which nobody
#: without a GPU should wait for. A global, since a region that is compiled cannot import.
_varlen_attn: Any = None
#: Newer versions want to be told that there are fewer key heads than query heads.
_is_told_of_groups = False

#: The kernel takes heads of at most this size, and of a multiple of 8.
_LARGEST_HEAD = 256


class Layout(NamedTuple):
    """Where the sequences of a packing are; as in `Packing`.

    The longest length is the size of a tensor, since a region that is compiled for sizes that
    change would be compiled again for each number.
    """

    offsets: Tensor
    places: Tensor
    span: Tensor
    """[longest], of no meaning."""
    key_tokens: Tensor | None = None
    key_offsets: Tensor | None = None
    key_places: Tensor | None = None
    key_span: Tensor | None = None
    """[longest_keys], of no meaning."""

    @classmethod
    def of(cls, packing: Packing) -> Layout:
        """Return the layout of a packing, for regions."""
        span = torch.empty(packing.longest, dtype=torch.uint8, device=packing.offsets.device)
        layout = cls(packing.offsets, packing.places, span)
        if packing.key_tokens is not None:
            layout = layout._replace(
                key_tokens=packing.key_tokens,
                key_offsets=packing.key_offsets,
                key_places=packing.key_places,
                key_span=span.new_empty(packing.longest_keys),
            )
        free_rows(*layout)
        return layout


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None, kernel: str
) -> Tensor:
    """Return what each head mixes, [N, Q, E], from queries [N, Q, E], keys and values [N, G, E].

    ``window``: a token sees so many tokens, itself among them. ``kernel``: see `kernel_for`. Where
    the layout has keys of its own, a sequence's tokens are the last of those that it sees.
    """
    if layout.key_tokens is not None:
        k, v = k[layout.key_tokens], v[layout.key_tokens]
    if kernel == "rectangle":
        return _in_rectangle(q, k, v, layout, scale, window)
    if kernel == "repeated":
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    options: Any = {"enable_gqa": True} if _is_told_of_groups and kernel == "grouped" else {}
    sees = (-1 if window is None else window - 1, 0)
    offsets, longest = layout.offsets, layout.span.shape[0]
    key_offsets, longest_keys = offsets, longest
    if layout.key_offsets is not None and layout.key_span is not None:
        key_offsets, longest_keys = layout.key_offsets, layout.key_span.shape[0]
    mixed: Any = _varlen_attn(
        q, k, v, offsets, key_offsets, longest, longest_keys,
        scale=scale, window_size=sees, **options,
    )  # fmt: skip
    return mixed  # type: ignore[no-any-return]


@cache
def kernel_for(device: torch.device, dtype: torch.dtype, heads: int, groups: int, size: int) -> str:
    """Return the fastest way that works here, found by trying.

    ``grouped``: torch's kernel, with fewer key heads than query heads. ``repeated``: the same, with
    each key head as often as it is needed. ``rectangle``: padded sequences.
    """
    fits = dtype.itemsize == 2 and size % 8 == 0 and size <= _LARGEST_HEAD
    if device.type != "cuda" or not fits or not _find_kernel():
        return "rectangle"
    for kernel in ("grouped", "repeated"):
        try:
            if _is_right(kernel, device, dtype, heads, groups, size):
                return kernel
        except (RuntimeError, TypeError, ValueError):
            continue  # this torch has no such kernel, or not for these heads
    return "rectangle"


def _find_kernel() -> bool:
    """Import torch's kernel, and return whether there is one."""
    global _varlen_attn, _is_told_of_groups  # noqa: PLW0603
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return False
    _varlen_attn = varlen_attn
    _is_told_of_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters
    return True


def _is_right(
    kernel: str, device: torch.device, dtype: torch.dtype, heads: int, groups: int, size: int
) -> bool:
    """Return whether a kernel and its gradients agree with the rectangle on random numbers."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 1, 130, 24])
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    positions = torch.cat([torch.arange(int(length)) for length in lengths])
    sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
    span = torch.empty(256, dtype=torch.uint8, device=device)
    layout = Layout(offsets.to(device), (sequence * 256 + positions).to(device), span)
    drawn = [
        torch.randn(len(positions), number, size, generator=generator).to(device)
        for number in (heads, groups, groups, heads)
    ]

    def attend(kernel: str, dtype: torch.dtype, window: int | None) -> Tensor:
        q, k, v, weights = (x.to(dtype).requires_grad_() for x in drawn)
        mixed = packed_attention(q, k, v, layout, size**-0.5, window, kernel)
        gradients = torch.autograd.grad((mixed * weights.detach()).sum(), (q, k, v))
        return torch.cat([x.detach().float().flatten() for x in (mixed, *gradients)])

    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for window in (None, 7):
            exact = attend("rectangle", torch.float32, window)
            error = (attend(kernel, dtype, window) - exact).norm() / exact.norm()
            if not bool(error < 2.0**-6):
                return False
    return True


def _in_rectangle(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int | None
) -> Tensor:
    rows, length = layout.offsets.shape[0] - 1, layout.span.shape[0]
    columns, key_places = length, layout.places
    mask = None
    if layout.key_span is not None and layout.key_places is not None:
        columns, key_places = layout.key_span.shape[0], layout.key_places
    if layout.key_offsets is not None:
        # The first token of a sequence stands behind what it sees of others.
        before = (layout.key_offsets.diff() - layout.offsets.diff()).view(rows, 1, 1, 1)
        at = before + torch.arange(length, device=q.device).unsqueeze(1)
        at = at.clamp(max=columns - 1)  # of padding, which must see something
        distance = at - torch.arange(columns, device=q.device)
        mask = (distance >= 0) & (distance < (columns if window is None else window))
    elif window is not None and window < length:
        distance = torch.arange(length, device=q.device).unsqueeze(1)
        distance = distance - torch.arange(length, device=q.device)
        mask = (distance >= 0) & (distance < window)

    def laid_out(x: Tensor, places: Tensor, width: int) -> Tensor:
        flat = x.new_zeros(rows * width, *x.shape[1:]).index_copy(0, places, x)
        return flat.view(rows, width, *x.shape[1:]).transpose(1, 2)

    mixed = F.scaled_dot_product_attention(
        laid_out(q, layout.places, length),
        laid_out(k, key_places, columns),
        laid_out(v, key_places, columns),
        attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return mixed.transpose(1, 2).flatten(0, 1)[layout.places]
