"""Drawing tokens: a distribution inverted at a uniform number, which is each row's own.

Shapes: ``B`` rows, ``V`` vocabulary, ``R`` most new tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

#: The vocabulary is searched for a token in two steps: first for a part of this many, then in it.
_PART = 64


class Drawn(NamedTuple):
    """Responses, row by row; behind a row's length there is nothing of meaning."""

    tokens: Tensor
    """[B, R]."""
    logprobs: Tensor
    """[B, R]."""
    values: Tensor
    """[B, R] of the state before each token; 0 without a value head."""
    lengths: Tensor
    """[B]."""
    finished: Tensor
    """[B] True where the row came to its end."""


def draw_tokens(
    logits: Tensor,
    uniforms: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw one token per row by inverting its distribution at a uniform number.

    ``logits`` [B, V] and ``uniforms`` [B] in [0, 1) give tokens [B] and their log-probabilities
    [B] at the temperature, before top-k and top-p.
    """
    scaled = logits.float()
    if temperature != 1.0:
        scaled = scaled / temperature
    whole = torch.softmax(scaled, dim=-1)
    tokens = _invert(_filter(whole, top_k, top_p), uniforms)
    return tokens, whole.gather(1, tokens.unsqueeze(1)).squeeze(1).log()


def _invert(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Return the first index at which the cumulative share exceeds ``uniforms``, row by row.

    Sums in float64, of parts first and inside one part then, so that the whole vocabulary is read
    once. Each search is scaled by the true sum, so that rounding (or a filter) never points past
    the last possible token.
    """
    rows, size = probabilities.shape
    parts = F.pad(probabilities, (0, -size % _PART)).view(rows, -1, _PART)
    part, left = _search(parts.sum(-1), uniforms.double())
    token, _ = _search(parts[torch.arange(rows, device=parts.device), part], left)
    return part * _PART + token


def _search(shares: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index [B] in ``shares`` [B, N], and how far into its share the number points."""
    cumulative = shares.cumsum(-1, dtype=torch.float64)
    target = uniforms.unsqueeze(1) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, target, right=True)
    index = index.clamp(max=shares.shape[1] - 1)
    share = shares.gather(1, index).double()
    into = (target - cumulative.gather(1, index) + share) / share
    return index.squeeze(1), into.clamp(0.0, 1.0 - 2.0**-53).squeeze(1)


def _filter(probabilities: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Set to 0 what top-k and top-p exclude; the most likely token always stays."""
    if top_k is None and top_p is None:
        return probabilities
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k is not None:
        keep[:, top_k:] = False
    if top_p is not None:
        # A token stays while the mass before it is under top_p.
        mass = ordered.cumsum(-1, dtype=torch.float64)
        keep &= mass - ordered < top_p
        keep[:, 0] = True
    return torch.zeros_like(probabilities).scatter(-1, index, ordered * keep)


def uniform_numbers(seeds: Sequence[int], steps: int) -> Tensor:
    """Return numbers in [0, 1) [B, R]; row by row, each from a generator of its own."""
    generator = torch.Generator()
    return torch.stack(
        [
            torch.rand(steps, generator=generator.manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
    )
