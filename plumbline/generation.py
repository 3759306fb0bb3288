"""Sampling: the one place where a policy is made to speak.

Each row draws from a random stream of its own, which depends on its seed alone. The same prompt
with the same seed therefore gets the same response in whatever batch it lands, next to whichever
neighbours (up to the rounding of the logits, which batching may change in the last bits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from plumbline.batches import pad_left, position_ids
from plumbline.config import Config, without_effect

#: Rows that are done leave the batch when they are this share of it: moving the cache has a price.
_SHARE_DONE_TO_COMPACT = 0.25


class SamplingConfig(Config):
    """How responses are drawn."""

    temperature: float = Field(1.0, gt=0)
    """Divides the logits. Log-probabilities are taken at the same temperature."""
    top_k: int | None = Field(None, ge=1)
    """Keep only this many most likely tokens. Null keeps all."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Keep the most likely tokens up to this probability mass. Null keeps all."""
    max_new_tokens: int = Field(96, ge=1)
    """Responses are cut here; a cut response has no end token."""
    batch_size: int = without_effect(256, ge=1)
    """Rows generated at once. Changes speed and memory, not the responses."""


class Generation(NamedTuple):
    """One response."""

    ids: list[int]
    """Its tokens, with the end token where it came to an end."""
    logprobs: list[float]
    """Log-probability of each token at the sampling temperature, before top-k and top-p."""
    finished: bool
    """False where it was cut at ``max_new_tokens``."""


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplingConfig,
    *,
    end_ids: frozenset[int],
    pad_id: int,
    on_progress: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Sample one response to each prompt.

    ``seeds`` has one seed a prompt. ``on_progress`` is called with the number of responses that
    each batch adds. The order of the results is that of the prompts.
    """
    # Prompts of similar length go together: less padding, and batches that end together.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    results: dict[int, Generation] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        batch = _generate_batch(
            model, [prompts[r] for r in rows], [seeds[r] for r in rows], config, end_ids, pad_id
        )
        results |= dict(zip(rows, batch, strict=True))
        if on_progress is not None:
            on_progress(len(rows))
    model.train(was_training)
    return [results[row] for row in range(len(prompts))]


def _generate_batch(
    model: Any,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    config: SamplingConfig,
    end_ids: frozenset[int],
    pad_id: int,
) -> list[Generation]:
    device = model.device
    ids, mask = (tensor.to(device) for tensor in pad_left(prompts, pad_id))
    uniforms = _uniforms(seeds, config.max_new_tokens).to(device)  # [B, R]
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
    tokens = torch.zeros(len(prompts), config.max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(len(prompts), config.max_new_tokens, device=device)
    lengths = torch.full((len(prompts),), config.max_new_tokens, device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)

    live = torch.arange(len(prompts), device=device)  # which rows the cache holds
    positions, cache = position_ids(mask), None
    for step in range(config.max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        chosen, logprob = sample_tokens(output.logits[:, -1], uniforms[live, step], config)
        tokens[live, step], logprobs[live, step] = chosen, logprob

        ending = torch.isin(chosen, ends) & ~finished[live]
        lengths[live[ending]] = step + 1
        finished[live[ending]] = True
        done = finished[live]
        if bool(done.all()):
            break
        ids, positions = chosen.unsqueeze(1), positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        if float(done.float().mean()) >= _SHARE_DONE_TO_COMPACT:
            keep = (~done).nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            live, ids, positions, mask = live[keep], ids[keep], positions[keep], mask[keep]
    return [
        Generation(tokens[row, :length].tolist(), logprobs[row, :length].tolist(), done)
        for row, (length, done) in enumerate(zip(lengths.tolist(), finished.tolist(), strict=True))
    ]


def sample_tokens(
    logits: Tensor, uniforms: Tensor, config: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting its distribution at a uniform number.

    ``logits`` [B, V] and ``uniforms`` [B] in [0, 1) give tokens [B] and their log-probabilities
    [B] at the temperature, before top-k and top-p.
    """
    logprobs = torch.log_softmax(logits.float() / config.temperature, dim=-1)
    probabilities = _filter(logprobs.exp().double(), config)
    cumulative = probabilities.cumsum(-1)
    # Scaled by the true sum, so that rounding (or a filter) never points past the last token.
    target = uniforms.double().unsqueeze(1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    tokens = tokens.clamp(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1)


def _filter(probabilities: Tensor, config: SamplingConfig) -> Tensor:
    """Set to 0 what top-k and top-p exclude; the most likely token always stays."""
    if config.top_k is None and config.top_p is None:
        return probabilities
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if config.top_k is not None:
        keep[:, config.top_k :] = False
    if config.top_p is not None:
        # A token stays while the mass before it is under top_p.
        keep &= ordered.cumsum(-1) - ordered < config.top_p
        keep[:, 0] = True
    return torch.zeros_like(probabilities).scatter(-1, index, ordered * keep)


def _uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """Return numbers in [0, 1) [B, R]; row by row, each from a generator of its own."""
    generator = torch.Generator()
    return torch.stack(
        [
            torch.rand(steps, generator=generator.manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
    )
