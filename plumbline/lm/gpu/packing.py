"""Rows of a batch as one long sequence without padding.

A packing is made on the CPU, where the lengths of the rows are known, and then moved to a device
in a few transfers that the device does not wait for.

Shapes: ``S`` sequences, ``N`` tokens of all of them, ``M`` response tokens, ``B`` rows of the
batch, ``R`` response positions, ``K`` tokens that are seen, counted for each sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from plumbline.lm.batches import Batch, position_ids

#: ``N`` is a multiple of this: products of round shapes are faster, and fewer shapes are seen.
_MULTIPLE = 64


class Packing(NamedTuple):
    """Sequences behind each other. The last one is padding, and may be empty."""

    ids: Tensor
    """[N] token ids."""
    positions: Tensor
    """[N] the position of each token in its own sequence."""
    offsets: Tensor
    """[S + 1] int32: where each sequence begins, and where the last one ends."""
    places: Tensor
    """[N] where each token stands if the sequences are laid out as [S, longest]."""
    longest: int
    """No sequence is longer; a multiple, too."""
    predicts: Tensor
    """[M] the token before each response token."""
    response_ids: Tensor
    """[M] the ids of the response tokens."""
    response_places: Tensor
    """[M] where each of them stands in [B, R], laid out flat."""
    shape: tuple[int, int]
    """B and R."""
    key_tokens: Tensor | None = None
    """[K] the tokens that each sequence sees, sequence by sequence, itself the last ones; None
    where a sequence sees itself alone."""
    key_offsets: Tensor | None = None
    """[S + 1] int32: where these begin for each sequence."""
    key_places: Tensor | None = None
    """[K] where each of them stands if they are laid out as [S, longest_keys]."""
    longest_keys: int = 0

    @property
    def sequences(self) -> int:
        """S."""
        return len(self.offsets) - 1

    def to(self, device: torch.device | str) -> Packing:
        """Return the packing on a device."""
        return Packing(
            *(move(part, device) if isinstance(part, Tensor) else part for part in self)  # type: ignore[arg-type]
        )

    def unpack(self, values: Tensor) -> Tensor:
        """Return values of the response tokens, [M, ...], as [B, R, ...] with 0 elsewhere."""
        rows, width = self.shape
        flat = values.new_zeros(rows * width, *values.shape[1:])
        return flat.index_copy(0, self.response_places, values).view(rows, width, *values.shape[1:])


def pack(batch: Batch) -> Packing:
    """Pack a batch. On the CPU this costs no wait for a device."""
    mask, response = batch.attention_mask.cpu().bool(), batch.response_mask.cpu()
    rows, width = response.shape
    prompts = mask.shape[1] - width
    real = mask.flatten().nonzero().squeeze(1)
    number = mask.flatten().cumsum(0).sub_(1).view(mask.shape)  # of each token among the real ones
    wanted = response.flatten().nonzero().squeeze(1)
    # The token before the response token in column c stands in column c - 1.
    before = number[:, prompts - 1 : -1].flatten()[wanted]
    ids = batch.ids.cpu()
    return _packing(
        ids.flatten()[real],
        position_ids(mask.long()).flatten()[real],
        mask.sum(1),
        before,
        ids[:, prompts:].flatten()[wanted],
        wanted,
        (rows, width),
    )


def pack_branches(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[Sequence[int]]]
) -> Packing:
    """Pack prompts, each once, with their responses; a response sees its prompt and itself.

    ``S`` sequences are the prompts and responses in order, ``B`` rows the responses alone.
    """
    texts: list[Sequence[int]] = []
    predicts, seen, position = [], [], []
    total = 0
    for prompt, several in zip(prompts, responses, strict=True):
        if not prompt or not all(several):
            raise ValueError("a prompt and each of its responses have at least one token")
        begin, end = total, total + len(prompt)
        texts.append(prompt)
        seen.append(torch.arange(begin, end))
        position.append(torch.arange(len(prompt)))
        total = end
        for response in several:
            own = torch.arange(total, total + len(response))
            predicts.append(torch.cat([own.new_tensor([end - 1]), own[:-1]]))
            seen.append(torch.cat([torch.arange(begin, end), own]))
            position.append(torch.arange(len(prompt), len(prompt) + len(response)))
            texts.append(response)
            total += len(response)
    rows = [response for several in responses for response in several]
    width = max(map(len, rows))
    packing = _packing(
        torch.tensor([token for text in texts for token in text]),
        torch.cat(position),
        torch.tensor([len(text) for text in texts]),
        torch.cat(predicts),
        torch.tensor([token for row in rows for token in row]),
        torch.cat([torch.arange(len(row)) + n * width for n, row in enumerate(rows)]),
        (len(rows), width),
    )
    seen.append(torch.arange(total, len(packing.ids)))  # of the padding
    lengths = torch.tensor([len(part) for part in seen])
    longest = int(lengths.max())
    longest += -longest % _MULTIPLE
    places = [torch.arange(len(part)) + n * longest for n, part in enumerate(seen)]
    return packing._replace(
        key_tokens=torch.cat(seen),
        key_offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
        key_places=torch.cat(places),
        longest_keys=longest,
    )


def at_ends(packing: Packing, responses: Sequence[Sequence[Sequence[int]]]) -> Packing:
    """Return a packing of `pack_branches` whose ``predicts`` [B] are the responses' last tokens."""
    is_response = [flag for several in responses for flag in (False, *(True for _ in several))]
    last = (packing.offsets[1:-1].long() - 1)[torch.tensor(is_response)]
    return packing._replace(
        predicts=last,
        response_ids=torch.zeros_like(last),
        response_places=torch.arange(len(last)),
        shape=(len(last), 1),
    )


def pack_padded(ids: Tensor, attention_mask: Tensor) -> Packing:
    """Pack rows [B, T] with their attention mask; every token counts as a response token.

    So ``predicts`` [M] are all tokens, and `Packing.unpack` gives [B, T].
    """
    ids, mask = ids.cpu(), attention_mask.cpu().bool()
    places = mask.flatten().nonzero().squeeze(1)
    tokens, rows = ids.flatten()[places], (ids.shape[0], ids.shape[1])
    return _packing(
        tokens,
        position_ids(mask.long()).flatten()[places],
        mask.sum(1),
        torch.arange(len(tokens)),
        tokens,
        places,
        rows,
    )


def pack_last(ids: Tensor, attention_mask: Tensor) -> Packing:
    """Pack rows [B, T] with their attention mask; ``predicts`` [B] are their last tokens."""
    packing = pack_padded(ids, attention_mask)
    last = attention_mask.cpu().sum(1).cumsum(0) - 1
    number = torch.arange(len(ids))
    return packing._replace(
        predicts=last,
        response_ids=torch.zeros_like(last),
        response_places=number,
        shape=(len(ids), 1),
    )


def pack_texts(texts: Sequence[Sequence[int]]) -> Packing:
    """Pack texts; as response tokens stand the ones behind the end of each, which have no id.

    So ``predicts`` [S] are the last tokens, and `Packing.unpack` gives [S, 1].
    """
    lengths = torch.tensor([len(text) for text in texts])
    ids = torch.tensor([token for text in texts for token in text])
    positions = torch.cat([torch.arange(len(text)) for text in texts])
    number = torch.arange(len(texts))
    last = lengths.cumsum(0) - 1
    return _packing(ids, positions, lengths, last, torch.zeros_like(last), number, (len(texts), 1))


def side_by_side(packing: Packing, copies: int) -> Packing:
    """Return a packing with all sequences several times, and the padding behind the last copy.

    Response tokens stand in the order of the copies: ``B`` grows, ``R`` stays.
    """
    if copies == 1:
        return packing
    if packing.key_tokens is not None:
        raise ValueError("responses that share a prompt are read by one role at a time")
    length = int(packing.offsets[-2])
    rows, width = packing.shape
    starts = torch.arange(copies).unsqueeze(1)
    return _packing(
        packing.ids[:length].repeat(copies),
        packing.positions[:length].repeat(copies),
        packing.offsets[:-1].diff().repeat(copies),
        (packing.predicts + starts * length).flatten(),
        packing.response_ids.repeat(copies),
        (packing.response_places + starts * rows * width).flatten(),
        (copies * rows, width),
    )


def move(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; the host does not wait while it travels to a GPU."""
    if torch.device(device).type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _packing(
    ids: Tensor,
    positions: Tensor,
    lengths: Tensor,
    predicts: Tensor,
    response_ids: Tensor,
    response_places: Tensor,
    shape: tuple[int, int],
) -> Packing:
    padding = -len(ids) % _MULTIPLE
    lengths = torch.cat([lengths, lengths.new_tensor([padding])])
    positions = torch.cat([positions, torch.arange(padding)])
    longest = int(lengths.max())
    longest += -longest % _MULTIPLE
    sequence = torch.arange(len(lengths)).repeat_interleave(lengths)
    # A sequence's first token stands in its first column, wherever its positions begin.
    columns = torch.cat([torch.arange(int(length)) for length in lengths])
    return Packing(
        torch.cat([ids, ids.new_zeros(padding)]),
        positions,
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
        sequence * longest + columns,
        longest,
        predicts,
        response_ids,
        response_places,
        shape,
    )
