"""Linear layers of a snapshot: a matrix that does not change, so it is laid out once.

On a CPU the matrix is packed for oneDNN, which otherwise lays out a plain one again in every
product: some 7 to 20 % of a product of 64 rows. Elsewhere, and where this torch packs nothing or
packs inexactly, it is a plain matrix.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Rows of a product that the packing is chosen for; it serves any number.
_ROWS = 64
#: Largest error of a packed product in roundings of its number format, times the square root of
#: the summed length.
_ERROR = 32.0


class Linear:
    """x W^T + b for rows x [N, in], a matrix W [out, in] and a bias b [out] or none."""

    def __init__(self, matrix: Tensor, bias: Tensor | None, *, packed: bool = True) -> None:
        """Lay a matrix out; ``packed=False`` leaves it as it is, for `tensors`."""
        self._bias = bias
        self._packed = packed and packs(matrix.device.type, matrix.dtype)
        # Plain products of a matrix [in, out] are the faster ones on a CPU.
        plain = matrix.t().contiguous() if packed else matrix.t()
        self._matrix: Tensor = _pack(matrix) if self._packed else plain

    @property
    def plain(self) -> tuple[Tensor, Tensor | None]:
        """The matrix [out, in] and the bias, of a layer that is not packed."""
        return self._matrix.t(), self._bias

    def tensors(self) -> list[Tensor]:
        """Return what it holds."""
        return [self._matrix] if self._bias is None else [self._matrix, self._bias]

    def of(self, x: Tensor) -> Tensor:
        """Return [N, out]."""
        if self._packed:
            return _packed_product(x, self._matrix, self._bias)
        if self._bias is None:
            return torch.mm(x, self._matrix)
        return torch.addmm(self._bias, x, self._matrix)

    def added(self, total: Tensor, x: Tensor) -> Tensor:
        """Return total + x W^T + b, [N, out]."""
        if self._packed:
            operations: Any = torch.ops.mkldnn
            return operations._linear_pointwise.binary(  # type: ignore[no-any-return]
                x, total, self._matrix, self._bias, "add"
            )
        result = torch.addmm(total, x, self._matrix)
        return result if self._bias is None else result + self._bias


@cache
def packs(device: str, dtype: torch.dtype) -> bool:
    """Return whether products with a packed matrix work here, and are exact."""
    if device != "cpu" or dtype not in (torch.float32, torch.bfloat16):
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, 96, generator=generator).to(dtype)
    matrix = torch.randn(80, 96, generator=generator).to(dtype)
    try:
        product = _packed_product(x, _pack(matrix), None)
    except (AttributeError, RuntimeError):  # torch without oneDNN, or without these operators
        return False
    expected = F.linear(x.double(), matrix.double())
    largest = float((product.double() - expected).abs().max())
    return bool(largest < _ERROR * torch.finfo(dtype).eps * x.shape[1] ** 0.5)


def _pack(matrix: Tensor) -> Tensor:
    operations: Any = torch.ops.mkldnn
    packed: Tensor = operations._reorder_linear_weight(matrix.contiguous(), _ROWS)
    return packed


def _packed_product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    operations: Any = torch.ops.mkldnn
    product: Tensor = operations._linear_pointwise(x, packed, bias, "none", [], "")
    return product
