"""Number formats of computation: float32 by the faster library, or bfloat16 over float32 weights.

Weights and optimiser states stay in float32 either way. What is bfloat16 are matrix products and
what flows between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Precision = Literal["auto", "model", "bfloat16"]
"""A setting: that of the weights, bfloat16, or (auto) bfloat16 on a GPU that has it, and that of
the weights elsewhere."""
#: Largest error, in float32 roundings times the square root of the summed length, that counts as
#: float32. Products in true bfloat16 are off by some 10,000.
_FLOAT32_ERROR = 32.0


def computes_in_bfloat16(precision: Precision, device: torch.device | str) -> bool:
    """Return what a setting means on a device."""
    if precision != "auto":
        return precision == "bfloat16"
    on_gpu = torch.device(device).type == "cuda"
    return on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)


@contextmanager
def compute_precision(
    precision: Precision, device: torch.device | str, *, fast_float32: bool = True
) -> Iterator[None]:
    """Compute in a number format for a while.

    Which library multiplies is a flag of the whole process. Enter this once around all that a
    stage does, before it starts threads, and only then again inside: flipped in one thread while
    another computes, it would let the clock decide the last bits of a result.

    Weights may move meanwhile: no copy of them is kept from one pass to the next.
    """
    kind = torch.device(device).type
    half = torch.autocast(
        kind,
        torch.bfloat16,
        enabled=computes_in_bfloat16(precision, device),
        cache_enabled=False,
    )
    with _fast_float32(kind, wanted=fast_float32), half:
        yield


@contextmanager
def _fast_float32(kind: str, *, wanted: bool) -> Iterator[None]:
    """Send float32 products on a CPU to oneDNN, where that is as exact as float32.

    torch sends them there only when it may also use a lower precision. Without matrix units for
    that (AMX), oneDNN does not, and is the faster of the two libraries.
    """
    if kind != "cpu" or not wanted or not onednn_is_exact():
        yield
        return
    library: Any = torch.backends.mkldnn
    flags = library.matmul
    before = flags.fp32_precision
    flags.fp32_precision = "bf16"
    try:
        yield
    finally:
        flags.fp32_precision = before


@cache
def onednn_is_exact() -> bool:
    """Whether float32 products through oneDNN have errors of float32 on this machine."""
    library: Any = torch.backends.mkldnn
    if not library.is_available():
        return False
    flags = library.matmul
    generator = torch.Generator().manual_seed(0)
    before = flags.fp32_precision
    flags.fp32_precision = "bf16"
    try:
        # Library kernels differ by shape, so look at a thin one and a square one.
        return all(
            _error(torch.randn(rows, 256, generator=generator)) < _FLOAT32_ERROR
            for rows in (1, 64, 256)
        )
    finally:
        flags.fp32_precision = before


def _error(x: Tensor, product: Callable[[Tensor, Tensor], Tensor] = torch.mm) -> float:
    """Return the largest error of a product with x, in float32 roundings of its typical size."""
    weight = torch.linspace(-1, 1, x.shape[1] * 256).view(x.shape[1], 256).sin()
    with torch.autocast("cpu", enabled=False):
        result = product(x, weight)
    exact = x.double() @ weight.double()
    scale = torch.finfo(torch.float32).eps * x.shape[1] ** 0.5
    return float((result - exact).abs().max() / scale)
