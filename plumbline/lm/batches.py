"""Prompts and responses as tensors.

Shapes, here and in every docstring that names them:

- ``B`` rows,
- ``P`` prompt positions, padded on the left so that every prompt ends at the same column,
- ``R`` response positions, padded on the right,
- ``T = P + R``.

Padding is known by length, never by comparing ids with the padding id: a policy may sample that
id in the middle of a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Prompts with their responses."""

    ids: Tensor
    """[B, T] token ids."""
    attention_mask: Tensor
    """[B, T] 1 at real tokens."""
    response_mask: Tensor
    """[B, R] True at the policy's tokens; where an environment spoke among them, it has holes."""

    @property
    def response_ids(self) -> Tensor:
        """[B, R] the ids of the responses."""
        return self.ids[:, -self.response_mask.shape[1] :]

    @property
    def position_ids(self) -> Tensor:
        """[B, T] the position of each token in its own row; padding has 0."""
        return position_ids(self.attention_mask)

    @property
    def lengths(self) -> Tensor:
        """[B] the number of real tokens in each row."""
        return self.attention_mask.sum(1)

    def rows(self, index: Tensor | slice) -> Batch:
        """Return some of the rows."""
        return Batch(*(tensor[index] for tensor in self))

    def trimmed(self) -> Batch:
        """Return the batch without the columns that are padding in every row.

        Both ends shrink; what stays of R is the longest response here.
        """
        used = self.response_mask.any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 1
        prompts = self.ids.shape[1] - self.response_mask.shape[1]
        first = int(self.attention_mask[:, :prompts].any(0).int().argmax())
        columns = slice(first, prompts + width)
        return Batch(
            self.ids[:, columns], self.attention_mask[:, columns], self.response_mask[:, :width]
        )

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        return Batch(*(tensor.to(device) for tensor in self))


def collate(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    pad_id: int,
    own: Sequence[Sequence[bool]] | None = None,
) -> Batch:
    """Lay prompts and responses out as one batch.

    ``own`` marks the response tokens that the policy produced; without it, those are all of them.
    """
    width_p = max(map(len, prompts))
    width_r = max(1, *map(len, responses))
    ids = torch.full((len(prompts), width_p + width_r), pad_id, dtype=torch.long)
    attention = torch.zeros_like(ids)
    mask = torch.zeros(len(prompts), width_r, dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        start, end = width_p - len(prompt), width_p + len(response)
        ids[row, start:end] = torch.tensor([*prompt, *response], dtype=torch.long)
        attention[row, start:end] = 1
        mask[row, : len(response)] = True if own is None else torch.tensor(own[row])
    return Batch(ids, attention, mask)


def by_length(lengths: Tensor, size: int) -> list[Tensor]:
    """Return the rows' numbers in parts of at most ``size``, rows of similar length together.

    ``lengths`` is [B].
    """
    order = lengths.argsort(stable=True)
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids [B, P] and attention mask [B, P] of prompts that end at the same column."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, width - len(values) :] = torch.tensor(values, dtype=torch.long)
        mask[row, width - len(values) :] = 1
    return ids, mask


def pad_right_ids(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return ids [B, T] and attention mask [B, T] of texts that begin at the same column."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values, dtype=torch.long)
        mask[row, : len(values)] = 1
    return ids, mask


def pad_right(rows: Sequence[Sequence[float]], width: int) -> Tensor:
    """Return values [B, width] with 0 after the end of each row."""
    values = torch.zeros(len(rows), width)
    for row, row_values in enumerate(rows):
        values[row, : len(row_values)] = torch.tensor(row_values)
    return values


def position_ids(attention_mask: Tensor) -> Tensor:
    """Return the position of each token in its own row, counted from 0, [B, T]."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)
