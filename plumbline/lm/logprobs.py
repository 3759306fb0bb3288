"""Log-probabilities of responses: the one place where they are computed.

At the temperature that the responses were sampled at, only at response positions, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.adapters import ACTIVE, Role, using_adapter
from plumbline.lm.backbone import last_hidden_states
from plumbline.lm.batches import Batch, by_length
from plumbline.lm.decoding.snapshot import plain_weights
from plumbline.lm.generation import ValueHead
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.head import head_logprobs
from plumbline.lm.gpu.memory import Room, rows_by_tokens, tokens_that_fit
from plumbline.lm.gpu.packing import pack, side_by_side
from plumbline.lm.gpu.passes import logprobs_of_states, packed_logprobs
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.trunk import is_supported, response_states
from plumbline.lm.virtual_tokens import read_with_virtual_tokens, virtual_tokens

#: Logits of more bytes than this are never held at once, by computing them a second time for the
#: backward pass.
_MOST_LOGITS = 1 << 28
#: Logits are looked at in parts of about this many numbers, which stay in a processor's cache.
_PART = 1 << 18


class TokenLogprobs(NamedTuple):
    """Log-probabilities and entropies of the tokens of responses."""

    logprobs: Tensor
    """[B, R] log-probability of each response token; 0 at padding."""
    entropy: Tensor
    """[B, R] entropy of the next-token distribution at each of them, in nats; 0 at padding."""


def response_logprobs(
    model: Any,
    batch: Batch,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
    role: Role = ACTIVE,
    checkpointing: bool = False,
) -> TokenLogprobs:
    """Return the log-probability of every response token under a model, [B, R].

    The distribution is softmax(logits / temperature), before any top-k or top-p filter: filters
    are a way of sampling, not part of the policy. The batch may be on any device; the results are
    on the model's. ``entropy_gradient``: the entropy is learnt from, too. ``role``: the adapter
    that is used. ``checkpointing``: a packed pass keeps no activations for its backward pass.
    """
    tokens, _ = logprobs_and_values(
        model,
        batch,
        None,
        temperature,
        entropy_gradient=entropy_gradient,
        role=role,
        checkpointing=checkpointing,
    )
    return tokens


def logprobs_and_values(
    model: Any,
    batch: Batch,
    value_head: ValueHead | None,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
    role: Role = ACTIVE,
    checkpointing: bool = False,
) -> tuple[TokenLogprobs, Tensor]:
    """Return log-probabilities, and a value for each state before a response token, [B, R].

    Both from one pass. ``value_head`` maps states [..., D] to values [...]; without it, values
    are 0. The rest is as in `response_logprobs`.
    """
    if has_packed_pass(model):
        packing = pack(batch).to(model.device)
        packed = packed_logprobs(
            model,
            packing,
            role,
            temperature,
            entropy_gradient=entropy_gradient,
            checkpointing=checkpointing,
        )
        head = value_head or _no_value
        tokens = TokenLogprobs(packing.unpack(packed.logprobs), packing.unpack(packed.entropy))
        return tokens, packing.unpack(head(packed.states))
    batch = batch.to(model.device)
    with using_adapter(model, role):
        states, logprobs, entropy = _plain_logprobs(model, batch, temperature, entropy_gradient)
    mask = batch.response_mask
    values = torch.zeros_like(logprobs) if value_head is None else value_head(states)
    masked = [tensor.masked_fill(~mask, 0.0) for tensor in (logprobs, entropy, values)]
    return TokenLogprobs(*masked[:2]), masked[2]


def response_values(
    model: Any,
    batch: Batch,
    value_head: ValueHead,
    *,
    role: Role = ACTIVE,
    checkpointing: bool = False,
) -> Tensor:
    """Return a value for the state before each response token, [B, R], on the model's device."""
    if has_packed_pass(model):
        packing = pack(batch).to(model.device)
        states = packed_states(model, packing, (role,), checkpointing=checkpointing)
        return packing.unpack(value_head(states))
    batch = batch.to(model.device)
    with using_adapter(model, role):
        values = value_head(response_states(model, batch))
    return values.masked_fill(~batch.response_mask, 0.0)


def logprobs_and_values_by_roles(
    model: Any,
    batch: Batch,
    roles: Sequence[Role],
    value: tuple[Role, ValueHead] | None,
    temperature: float = 1.0,
    *,
    entropy_gradient: bool = False,
    checkpointing: bool = False,
) -> tuple[list[TokenLogprobs], Tensor | None]:
    """Return the log-probabilities of several roles, and the values of one more, from one pass.

    The rows of all roles are beside each other, so that the base's products are computed at once.
    Only for models with packed passes (`has_packed_pass`).
    """
    packing = pack(batch)
    everyone = [*roles, value[0]] if value is not None else list(roles)
    states = packed_states(
        model, side_by_side(packing, len(everyone)), everyone, checkpointing=checkpointing
    ).chunk(len(everyone))
    packing = packing.to(model.device)
    tokens = []
    for role, of_role in zip(roles, states, strict=False):
        packed = logprobs_of_states(
            model, of_role, packing, role, temperature, entropy_gradient=entropy_gradient
        )
        tokens.append(
            TokenLogprobs(packing.unpack(packed.logprobs), packing.unpack(packed.entropy))
        )
    return tokens, None if value is None else packing.unpack(value[1](states[-1]))


def _plain_logprobs(
    model: Any, batch: Batch, temperature: float, entropy_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return states [B, R, D], log-probabilities and entropies [B, R] by a padded pass."""
    options: dict[str, bool] = {"entropy_gradient": entropy_gradient}
    head = model.get_output_embeddings()
    if not is_supported(model) or _size_of_logits(head, batch) <= _MOST_LOGITS:
        states, logits = response_logits(model, batch)
        return states, *token_logprobs(logits, batch.response_ids, temperature, **options)
    states = response_states(model, batch)
    ids = batch.response_ids
    weight, bias = plain_weights(head)
    logprobs, entropy = head_logprobs(
        states.flatten(0, 1), weight, bias, ids.flatten(), temperature, **options
    )
    return states, logprobs.view(ids.shape), entropy.view(ids.shape)


def head_token_logprobs(model: Any, states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy [M] of ``ids`` [M] of a known decoder's states [M, D].

    Where the logits would be large, they are never held all at once.
    """
    head = model.get_output_embeddings()
    weight, bias = plain_weights(head)
    if len(ids) * int(head.out_features) * 4 > _MOST_LOGITS:
        return head_logprobs(states, weight, bias, ids)
    logits = F.linear(states, weight.to(states.dtype), None if bias is None else bias.to(states))
    return token_logprobs(logits, ids)


def _size_of_logits(head: Any, batch: Batch) -> int:
    return batch.response_mask.numel() * int(head.out_features) * 4


def _no_value(states: Tensor) -> Tensor:
    return torch.zeros(len(states), device=states.device)


def response_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return last hidden states [B, R, D] before each response token, and their logits [B, R, V].

    Logits are computed only where they are needed: the last prompt token predicts the first
    response token, and what the last response token predicts is not asked.
    """
    if is_supported(model):
        states = response_states(model, batch)
        return states, model.get_output_embeddings()(states)
    # Some models scale or bend what their head says, so it is asked through the whole of them.
    width = batch.response_mask.shape[1]
    whole, inputs = (
        model,
        {
            "input_ids": batch.ids,
            "attention_mask": batch.attention_mask,
            "position_ids": batch.position_ids,
            "use_cache": False,
        },
    )
    if virtual_tokens(model):
        whole, inputs = read_with_virtual_tokens(model, batch.ids, batch.attention_mask)
    with last_hidden_states(model) as seen:
        logits = whole(**inputs, logits_to_keep=width + 1).logits
    return seen[0][:, -width - 1 : -1], logits[:, :-1]


@torch.no_grad()
def in_parts(look: Callable[[Batch], Tensor], batch: Batch, size: int, model: Any = None) -> Tensor:
    """Return the result of ``look`` for every row, [B, R], computed ``size`` rows at a time.

    Rows of similar length go together and padding that they all have is left away, which changes
    the time it takes and not the result. ``look`` maps a batch to [B, R]. With a ``model`` on a
    GPU, parts are as large as its memory holds, and ``size`` is not used.
    """
    (result,) = each_in_parts(lambda part: (look(part),), batch, size, model)
    return result


@torch.no_grad()
def each_in_parts(
    look: Callable[[Batch], Sequence[Tensor]], batch: Batch, size: int, model: Any = None
) -> tuple[Tensor, ...]:
    """Do the same where ``look`` returns several tensors."""
    if model is None or model.device.type != "cuda":
        return _look_at_parts(look, batch, by_length(batch.lengths, size))
    lengths = batch.lengths.cpu()
    room = Room(tokens_that_fit(model, learns=False))
    return room.use(lambda most: _look_at_parts(look, batch, rows_by_tokens(lengths, most)))


def _look_at_parts(
    look: Callable[[Batch], Sequence[Tensor]], batch: Batch, parts: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    results: list[Tensor] = []
    for rows in parts:
        part = batch.rows(rows).trimmed()
        outputs = look(part)
        if not results:
            shape = batch.response_mask.shape
            results = [torch.zeros(shape, device=output.device) for output in outputs]
        for result, output in zip(results, outputs, strict=True):
            result[rows.to(result.device), : part.response_mask.shape[1]] = output.to(result.dtype)
    return tuple(results)


def token_logprobs(
    logits: Tensor, ids: Tensor, temperature: float = 1.0, *, entropy_gradient: bool = False
) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy of ``ids`` [B, R] under ``logits`` [B, R, V].

    With z = logits / temperature: log p(i) = z_i - logsumexp(z), and
    H = logsumexp(z) - sum_i p_i z_i. Both in float32. The entropy has
    a gradient only where ``entropy_gradient`` asks for one.
    """
    logprobs, entropy = _TokenLogprobs.apply(logits, ids, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropy if entropy_gradient else entropy.detach()


class _TokenLogprobs(torch.autograd.Function):
    """The same as by `torch.log_softmax`, without holding [B, R, V] in float32 even once.

    Forward reads the logits a part at a time and keeps them with three numbers per token; backward
    writes their gradient at once, with no other tensor of that size.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        flat, tokens = logits.reshape(-1, logits.shape[-1]), ids.reshape(-1)
        logprobs = torch.empty(len(flat), dtype=torch.float32, device=logits.device)
        # The logsumexp in two summands, since the second may be too small to add to the first.
        top, rest, entropy = (torch.empty_like(logprobs) for _ in range(3))
        for part in _parts(flat):
            scaled = flat[part].float()
            scaled = scaled if temperature == 1.0 else scaled / temperature
            top[part] = scaled.amax(1)
            below = scaled - top[part, None]
            shares = torch.softmax(below, dim=-1)
            # The largest share is at least 1 / V, so that its logarithm loses nothing.
            rest[part] = -shares.amax(1).log()
            logprobs[part] = below.gather(1, tokens[part].unsqueeze(1)).squeeze(1) - rest[part]
            entropy[part] = rest[part] - torch.linalg.vecdot(shares, below)
        ctx.save_for_backward(flat, tokens, top, rest, entropy)
        ctx.temperature, ctx.shape = temperature, logits.shape
        return logprobs.view(ids.shape), entropy.view(ids.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """With p = softmax(z): d log p(i) / dz = onehot(i) - p, and dH / dz = -p (log p + H)."""
        flat, tokens, top, rest, entropy = ctx.saved_tensors
        of_logprobs, of_entropy = (
            gradient.reshape(-1, 1).float() / ctx.temperature for gradient in gradients
        )
        with_entropy = bool(of_entropy.any())
        result = torch.empty_like(flat)
        for part in _parts(flat):
            scaled = flat[part].float()
            scaled = scaled if ctx.temperature == 1.0 else scaled / ctx.temperature
            normed = (scaled - top[part, None]).sub_(rest[part, None])
            share = normed.exp()
            if with_entropy:
                weight = normed.add_(entropy[part, None]).mul_(of_entropy[part])
                share *= weight.add_(of_logprobs[part]).neg_()
            else:
                share *= -of_logprobs[part]
            share.scatter_add_(1, tokens[part].unsqueeze(1), of_logprobs[part])
            result[part] = share
        return result.view(ctx.shape), None, None


def _parts(flat: Tensor) -> list[slice]:
    size = max(1, _PART // flat.shape[1])
    return [slice(start, start + size) for start in range(0, len(flat), size)]
