"""Several responses to one prompt, which is read once for all of them.

For their log-probabilities, and for the hidden states at their ends, of which rewards are made.

A response sees the prompt and itself, not the other responses, and its positions continue from the
prompt's end: the numbers are those of each response behind a prompt of its own, up to rounding.
Nothing is padded. Models that we do not know read each response behind its own prompt.

Shapes: ``S`` prompts, ``B`` responses of all of them in order, ``R`` response positions, ``N``
tokens, ``M`` response tokens, ``H`` heads, ``E`` head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.adapters import ACTIVE, Role, using_adapter
from plumbline.lm.backbone import backbone
from plumbline.lm.batches import collate
from plumbline.lm.fused_layers import (
    FusedLayer,
    Rotations,
    finish,
    fused_layers,
    last_norm,
    project,
    rotations_of,
)
from plumbline.lm.gpu.branch_checks import has_branch_pass
from plumbline.lm.gpu.packing import Packing, at_ends, pack_branches
from plumbline.lm.gpu.passes import packed_logprobs
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.logprobs import TokenLogprobs, head_token_logprobs, response_logprobs
from plumbline.lm.trunk import LONGEST_BY_PRODUCTS, is_supported, number_format, windows_of


class Branches(NamedTuple):
    """Prompts, each with its responses."""

    prompts: Sequence[Sequence[int]]
    """Ids of each prompt, one at least."""
    responses: Sequence[Sequence[Sequence[int]]]
    """Ids of each response to it, one at least."""

    @property
    def flat(self) -> list[Sequence[int]]:
        """All responses in order."""
        return [response for several in self.responses for response in several]

    @property
    def tokens(self) -> Tensor:
        """[B] tokens of each response."""
        return torch.tensor([len(response) for response in self.flat])


def branch_logprobs(
    model: Any,
    branches: Branches,
    *,
    role: Role = ACTIVE,
    pad_id: int = 0,
    checkpointing: bool = False,
) -> TokenLogprobs:
    """Return log-probability and entropy of every response token, [B, R]; 0 at padding.

    ``role`` is the adapter that is used. ``pad_id`` fills up batches of models that have no pass
    of ours. ``checkpointing``: a packed pass keeps no activations for its backward pass.
    """
    if has_branch_pass(model):
        packing = pack_branches(*branches).to(model.device)
        packed = packed_logprobs(model, packing, role, checkpointing=checkpointing)
        return TokenLogprobs(packing.unpack(packed.logprobs), packing.unpack(packed.entropy))
    if is_supported(model):
        with using_adapter(model, role):
            logprobs = _fused_logprobs(model, branches)
        if logprobs is not None:
            return logprobs
    prompts = [
        prompt
        for prompt, several in zip(branches.prompts, branches.responses, strict=True)
        for _ in several
    ]
    batch = collate(prompts, branches.flat, pad_id)
    return response_logprobs(model, batch, role=role, checkpointing=checkpointing)


def branch_states(model: Any, branches: Branches, *, checkpointing: bool = False) -> Tensor:
    """Return the normalised last hidden state of each response's last token, [B, D].

    For a model that `reads_branches`, with its active adapter. ``checkpointing`` is that of
    `branch_logprobs`.

    Raises `ValueError` for another model.
    """
    packing = at_ends(pack_branches(*branches), branches.responses)
    if has_branch_pass(model):
        return packed_states(model, packing, checkpointing=checkpointing)
    if is_supported(model):
        trunk = backbone(model)
        dtype = number_format(trunk)
        with torch.autocast("cpu", enabled=False):
            states = _states(trunk, packing, branches, dtype, ends=True)
        if states is not None:
            return states
    raise ValueError(f"{type(model).__name__} cannot read a prompt once for several responses")


def reads_branches(model: Any) -> bool:
    """Return whether a model, as it is set now, can read a prompt once for several responses."""
    if has_branch_pass(model):
        return True
    if not is_supported(model):
        return False
    trunk = backbone(model)
    return fused_layers(trunk, number_format(trunk)) is not None


def _fused_logprobs(model: Any, branches: Branches) -> TokenLogprobs | None:
    """Return the same by the layers that we know, on a CPU; None where one is unknown."""
    trunk = backbone(model)
    packing = pack_branches(*branches)
    dtype = number_format(trunk)
    with torch.autocast("cpu", enabled=False):
        states = _states(trunk, packing, branches, dtype)
        if states is None:
            return None
        logprobs, entropy = head_token_logprobs(model, states, packing.response_ids)
    return TokenLogprobs(packing.unpack(logprobs), packing.unpack(entropy))


def _states(
    trunk: Any,
    packing: Packing,
    branches: Branches,
    dtype: torch.dtype,
    *,
    ends: bool = False,
) -> Tensor | None:
    """Return the normalised last hidden states at ``packing.predicts``, [M, D].

    With ``ends`` these are the last tokens of the responses, otherwise those before each token.
    """
    layers = fused_layers(trunk, dtype)
    if layers is None:
        return None
    pieces, windows = _Pieces(branches, dtype, ends=ends), windows_of(trunk)
    ids, positions = packing.ids[: pieces.tokens], packing.positions[: pieces.tokens]
    embedding, epsilon = trunk.embed_tokens, trunk.norm.variance_epsilon
    x = F.embedding(ids, embedding.weight, embedding.padding_idx).to(dtype).unsqueeze(0)
    rotations = rotations_of(trunk, x, positions.unsqueeze(0), layers[0].scale)
    for layer, window in zip(layers[:-1], windows[:-1], strict=True):
        mixed = _attention(x, layer, rotations, pieces, window, epsilon)
        x = finish(x, mixed, layer, epsilon)
    # Only the states that are asked for are looked at any more.
    mixed = _attention(x, layers[-1], rotations, pieces, windows[-1], epsilon, last=True)
    wanted = packing.predicts
    rows = torch.unique(wanted)
    x = finish(x[:, rows], mixed[:, pieces.place_in_last[rows]], layers[-1], epsilon)
    return last_norm(x, trunk)[0, torch.searchsorted(rows, wanted)]


class _Pieces:
    """How the tokens of a packing are cut: each prompt, and each response behind it."""

    def __init__(self, branches: Branches, dtype: torch.dtype, *, ends: bool = False) -> None:
        self.lengths: list[int] = []
        self.prompt_of: list[int | None] = []
        """The piece that holds a response's prompt; None for a prompt."""
        for prompt, several in zip(branches.prompts, branches.responses, strict=True):
            place = len(self.lengths)
            self.lengths += [len(prompt), *map(len, several)]
            self.prompt_of += [None, *([place] * len(several))]
        self.tokens = sum(self.lengths)
        self._dtype = dtype
        self._masks: dict[tuple[int, int, float], Tensor] = {}
        self.last_queries = [
            int(not ends) if of is None else 1 if ends else n
            for n, of in zip(self.lengths, self.prompt_of, strict=True)
        ]
        """How many of a piece's last tokens the last layer computes."""
        kept = torch.cat(
            [
                torch.arange(int(end) - n, int(end))
                for end, n in zip(
                    torch.tensor(self.lengths).cumsum(0), self.last_queries, strict=True
                )
            ]
        )
        self.place_in_last = torch.zeros(self.tokens, dtype=torch.long)
        self.place_in_last[kept] = torch.arange(len(kept))

    def hidden(self, queries: int, keys: int, window: float) -> Tensor | None:
        """Return what is added to the scores of the last tokens of a text, [queries, keys].

        Minus infinity where a token would see one behind it, or before its window.
        """
        if queries == 1 and keys <= window:
            return None
        window = min(window, keys)
        key = queries, keys, window
        if key not in self._masks:
            at = torch.arange(keys - queries, keys).unsqueeze(1)
            distance = at - torch.arange(keys)
            seen = (distance >= 0) & (distance < window)
            mask = torch.zeros(queries, keys, dtype=self._dtype)
            self._masks[key] = mask.masked_fill_(~seen, float("-inf"))
        return self._masks[key]


def _attention(
    x: Tensor,
    layer: FusedLayer,
    rotations: Rotations,
    pieces: _Pieces,
    window: float,
    epsilon: float,
    *,
    last: bool = False,
) -> Tensor:
    """Return what each head mixes, [1, N, H E]; with ``last``, at the last layer's tokens only."""
    q, k, v = (
        torch.split(part[0], pieces.lengths, 1) for part in project(x, layer, rotations, epsilon)
    )
    mixed = []
    for place, prompt in enumerate(pieces.prompt_of):
        queries, keys, values = q[place], k[place], v[place]
        if last:
            queries = queries[:, queries.shape[1] - pieces.last_queries[place] :]
            if not queries.shape[1]:
                continue
        if prompt is not None:
            keys = torch.cat([k[prompt], keys], dim=1)
            values = torch.cat([v[prompt], values], dim=1)
        mixed.append(_attend(queries, keys, values, pieces, window))
    return torch.cat(mixed, dim=1).transpose(0, 1).reshape(1, -1, layer.heads * layer.size)


def _attend(q: Tensor, k: Tensor, v: Tensor, pieces: _Pieces, window: float) -> Tensor:
    """Return what the last tokens of a text mix, [H, queries, E], with scores scaled already."""
    heads, queries, size = q.shape
    groups, keys, _ = k.shape
    mask = pieces.hidden(queries, keys, window)
    if keys > LONGEST_BY_PRODUCTS:  # the [queries, keys] shares are never held
        causal = queries == keys and keys <= window
        mixed: Tensor = F.scaled_dot_product_attention(
            q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0),
            attn_mask=None if causal else mask, is_causal=causal, scale=1.0,
            enable_gqa=heads != groups,
        )  # fmt: skip
        return mixed[0]
    scores = torch.bmm(q.reshape(groups, -1, size), k.transpose(1, 2)).view(heads, queries, keys)
    shares = torch.softmax(scores if mask is None else scores.add_(mask), dim=-1)
    return torch.bmm(shares.view(groups, -1, keys), v).view(heads, queries, size)
