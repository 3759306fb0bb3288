"""What one of several processes holds of a tensor, and what a checkpoint holds of one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Share(NamedTuple):
    """Some consecutive numbers of a tensor, of which other processes hold the rest."""

    values: Tensor
    """[N]"""
    start: int
    """The first of them in the whole tensor, in row-major order."""
    shape: tuple[int, ...]
    """Of the whole tensor."""


class KeptInShares(NamedTuple):
    """A tensor of a checkpoint that several processes wrote, each its rows or numbers of it.

    Nothing is read before it is asked for.
    """

    files: Sequence[Path]
    """In the order of the processes."""
    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def part(self, start: int, stop: int) -> Tensor:
        """Return some of its numbers in row-major order, [N], from the files that hold them."""
        import torch
        from safetensors import safe_open

        parts: list[Tensor] = []
        place = 0
        for file in self.files:
            with safe_open(file, framework="pt") as held:
                share = held.get_slice(self.name)
                rows, *inner = share.get_shape()
                row = math.prod(inner)
                first, last = max(start, place) - place, min(stop, place + rows * row) - place
                if first < last:
                    above = first // row
                    read = share[above : -(-last // row)].reshape(-1)
                    parts.append(read[first - above * row : last - above * row])
                elif not parts and file == self.files[-1]:
                    parts.append(share[:0].reshape(-1))  # nothing, in the right number format
                place += rows * row
        return torch.cat(parts)

    def whole(self) -> Tensor:
        """Return all of it."""
        return self.part(0, self.size).reshape(self.shape)
