"""Log-probabilities of responses: the one place where they are computed.

At the temperature that the responses were sampled at, only at response positions, in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plumbline.batches import Batch, by_length


class TokenLogprobs(NamedTuple):
    """What a model says of the tokens of a response."""

    logprobs: Tensor
    """[B, R] log-probability of each response token; 0 at padding."""
    entropy: Tensor
    """[B, R] entropy of the next-token distribution at each of them, in nats; 0 at padding."""


def response_logprobs(model: Any, batch: Batch, temperature: float = 1.0) -> TokenLogprobs:
    """Return the log-probability of every response token under a model.

    The distribution is softmax(logits / temperature), before any top-k or top-p filter: filters
    are a way of sampling, not part of the policy.
    """
    width = batch.response_mask.shape[1]
    # Logits are computed only where they are needed: the last prompt token predicts the first
    # response token, and what the last response token predicts is not asked.
    logits = model(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=width + 1,
        use_cache=False,
    ).logits[:, :-1]
    logprobs, entropy = token_logprobs(logits, batch.response_ids, temperature)
    mask = batch.response_mask
    return TokenLogprobs(logprobs.masked_fill(~mask, 0.0), entropy.masked_fill(~mask, 0.0))


@torch.no_grad()
def in_parts(look: Callable[[Batch], Tensor], batch: Batch, size: int) -> Tensor:
    """Return what ``look`` says of every row, [B, R], computed ``size`` rows at a time.

    Rows of similar length go together and padding that they all have is left away, which changes
    the time it takes and not the result. ``look`` maps a batch to [B, R].
    """
    result = torch.zeros(batch.response_mask.shape, device=batch.ids.device)
    for rows in by_length(batch.lengths, size):
        part = batch.rows(rows).trimmed()
        result[rows, : part.response_mask.shape[1]] = look(part).to(result.device)
    return result


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy of ``ids`` [B, R] under ``logits`` [B, R, V].

    With z = logits / temperature: log p(i) = z_i - logsumexp(z), and
    H = logsumexp(z) - sum_i p_i z_i.
    """
    scaled = logits.float() / temperature
    logsumexp = torch.logsumexp(scaled, dim=-1)
    chosen = scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        mean = (torch.softmax(scaled, dim=-1) * scaled).sum(-1)
    return chosen - logsumexp, logsumexp.detach() - mean
