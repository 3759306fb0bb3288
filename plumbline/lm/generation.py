"""Sampling: the one place where a policy is made to speak.

Each row draws from a random stream of its own, which depends on its seed alone. The same prompt
with the same seed therefore gets the same response in any batch, next to any
neighbours (up to the rounding of the logits, which batching may change in the last bits).

Decoders that we know are sampled from through a snapshot of their weights
(`plumbline.lm.decoding`), all others as they are; the responses are the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from plumbline.config import Config, not_in_identity
from plumbline.lm.backbone import last_hidden_states
from plumbline.lm.batches import pad_left, position_ids
from plumbline.lm.decoding.decoder import Decoder
from plumbline.lm.decoding.snapshot import Snapshot, take_snapshot
from plumbline.lm.drawing import Drawn, draw_tokens, uniform_numbers
from plumbline.lm.gpu.sampling import generate_static, static_decoder
from plumbline.lm.precision import Precision, computes_in_bfloat16
from plumbline.lm.virtual_tokens import read_with_virtual_tokens, virtual_tokens

#: Rows that are done leave the batch when they are this share of it: moving the cache has a price.
_SHARE_DONE_TO_COMPACT = 0.25
#: On a GPU the host reads which rows are done once per this many steps: it waits for the GPU then.
_LOOK_EVERY = 16
ValueHead = Callable[[Tensor], Tensor]
"""Maps the last hidden states [B, D] to values [B]."""


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
    precision: Precision = "auto"
    """Number format of decoding: the model's, or bfloat16, which is faster and less exact. auto:
    bfloat16 on a GPU that has it, the model's elsewhere."""
    batch_size: int = not_in_identity(256, ge=1)
    """Rows generated at once. Changes speed and memory, not the responses."""
    snapshot: bool = not_in_identity(True)
    """Decode from a copy of the weights laid out for it, where the architecture is known. Costs
    the memory of that copy, changes the responses by no more than rounding."""


class Generation(NamedTuple):
    """One response."""

    ids: list[int]
    """Its tokens, with the end token where it came to an end."""
    logprobs: list[float]
    """Log-probability of each token at the sampling temperature, before top-k and top-p."""
    finished: bool
    """False where it was cut at ``max_new_tokens``."""
    values: list[float] | None = None
    """Value of the state before each token, where a value head was given."""


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
    value_head: ValueHead | None = None,
) -> list[Generation]:
    """Sample one response to each prompt.

    ``seeds`` has one seed per prompt. ``on_progress`` is called with the number of responses that
    each batch adds. The order of the results is that of the prompts. ``value_head`` is asked for
    the value of every state on the way.
    """
    # Prompts of similar length go together: less padding, and batches that end together.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    results: dict[int, Generation] = {}
    was_training = model.training
    model.eval()
    sample = _sampler(model, prompts, config, end_ids, pad_id, value_head)
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        # Decoding has a number format of its own.
        with torch.autocast(model.device.type, enabled=False):
            batch = sample([prompts[row] for row in rows], [seeds[row] for row in rows])
        results |= dict(zip(rows, batch, strict=True))
        if on_progress is not None:
            on_progress(len(rows))
    model.train(was_training)
    return [results[row] for row in range(len(prompts))]


def _sampler(
    model: Any,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    end_ids: frozenset[int],
    pad_id: int,
    value_head: ValueHead | None,
) -> Callable[[Sequence[Sequence[int]], Sequence[int]], list[Generation]]:
    """Return what samples some of the prompts with their seeds: the fastest way for the model."""
    device = model.device
    if device.type == "cuda" and prompts and config.snapshot:
        static = static_decoder(
            model,
            rows=min(len(prompts), config.batch_size),
            columns=max(map(len, prompts)) + config.max_new_tokens,
            new_tokens=config.max_new_tokens,
            dtype=_dtype(config, device),
        )
        if static is not None:
            settings = (config.temperature, config.top_k, config.top_p)

            def by_static_cache(
                some: Sequence[Sequence[int]], seeds: Sequence[int]
            ) -> list[Generation]:
                uniforms = uniform_numbers(seeds, config.max_new_tokens)
                drawn = generate_static(static, some, uniforms, settings, end_ids, value_head)
                return _generations(drawn, has_values=value_head is not None)

            return by_static_cache
    snapshot = _snapshot(model, prompts, config)

    def step_by_step(some: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Generation]:
        decoder = _decoder(model, snapshot, some, config, pad_id)
        return _generate_batch(decoder, seeds, config, end_ids, value_head, device)

    return step_by_step


def stream(
    model: Any,
    prompt: Sequence[int],
    seed: int,
    config: SamplingConfig,
    *,
    end_ids: frozenset[int],
    pad_id: int,
) -> Iterator[int]:
    """Yield the tokens of one response as they are drawn: those that `generate` draws."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            snapshot = _snapshot(model, [prompt], config)
            decoder = _decoder(model, snapshot, [prompt], config, pad_id)
            uniforms = uniform_numbers([seed], config.max_new_tokens).to(model.device)
        for step in range(config.max_new_tokens):
            with torch.no_grad():  # not across a yield, where it would hold for the caller
                chosen, _ = sample_tokens(decoder.logits(), uniforms[:, step], config)
            token = int(chosen)
            yield token
            if token in end_ids or step + 1 == config.max_new_tokens:
                return
            with torch.no_grad():
                decoder.step(chosen)
    finally:
        model.train(was_training)


def _dtype(config: SamplingConfig, device: torch.device) -> torch.dtype | None:
    """Return the number format of decoding; None for the model's own."""
    return torch.bfloat16 if computes_in_bfloat16(config.precision, device) else None


def _snapshot(
    model: Any, prompts: Sequence[Sequence[int]], config: SamplingConfig
) -> Snapshot | None:
    if not config.snapshot:
        return None
    snapshot = take_snapshot(model, _dtype(config, model.device))
    longest = max(map(len, prompts), default=0) + config.max_new_tokens
    if snapshot is None or (snapshot.window is not None and longest > snapshot.window):
        return None
    return snapshot


def _decoder(
    model: Any,
    snapshot: Snapshot | None,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    pad_id: int,
) -> _Decoder:
    """Return a decoder that has read the prompts."""
    if snapshot is not None:
        return _snapshot_decoder(snapshot, prompts, config, pad_id)
    ids, mask = (tensor.to(model.device) for tensor in pad_left(prompts, pad_id))
    return _PlainDecoder(model, ids, mask, _dtype(config, model.device))


def _snapshot_decoder(
    snapshot: Snapshot, prompts: Sequence[Sequence[int]], config: SamplingConfig, pad_id: int
) -> Decoder:
    """Return a decoder that has read the prompts; one that stands there several times, once."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    ids, mask = (tensor.to(snapshot.device) for tensor in pad_left(list(places), pad_id))
    decoder = Decoder(snapshot, ids, mask, config.max_new_tokens)
    if len(places) < len(prompts):
        rows = [places[tuple(prompt)] for prompt in prompts]
        decoder.keep(torch.tensor(rows, device=snapshot.device))
    return decoder


class _Decoder(Protocol):
    """Rows in the middle of being generated."""

    @property
    def state(self) -> Tensor:
        """[B, D] the last hidden states."""

    def logits(self) -> Tensor:
        """Return [B, V] for the next token."""

    def step(self, tokens: Tensor) -> None:
        """Read one more token a row, [B]."""

    def keep(self, rows: Tensor) -> None:
        """Keep some of the rows only."""


class _PlainDecoder:
    """Any model of transformers, as it is."""

    def __init__(self, model: Any, ids: Tensor, mask: Tensor, dtype: torch.dtype | None) -> None:
        self._model, self._mask = model, mask
        self._half = dtype is not None
        self._positions = position_ids(mask)
        self._cache: Any = None
        if virtual_tokens(model):
            self._read_behind_virtual_tokens(ids)
        else:
            self._read(ids)

    @property
    def state(self) -> Tensor:
        return self._states

    def logits(self) -> Tensor:
        logits: Tensor = self._output.logits[:, -1]
        return logits

    def step(self, tokens: Tensor) -> None:
        self._positions = self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._read(tokens.unsqueeze(1))

    def keep(self, rows: Tensor) -> None:
        self._cache.batch_select_indices(rows)
        self._positions, self._mask = self._positions[rows], self._mask[rows]

    def _read_behind_virtual_tokens(self, ids: Tensor) -> None:
        """Read the prompts; from then on the virtual tokens are in the cache."""
        self._model, inputs = read_with_virtual_tokens(self._model, ids, self._mask)
        self._mask, self._positions = inputs["attention_mask"], inputs["position_ids"]
        self._read_inputs(ids.device, inputs)

    def _read(self, ids: Tensor) -> None:
        inputs = {
            "input_ids": ids,
            "attention_mask": self._mask,
            "position_ids": self._positions,
            "past_key_values": self._cache,
        }
        self._read_inputs(ids.device, inputs)

    def _read_inputs(self, device: torch.device, inputs: dict[str, Any]) -> None:
        half = torch.autocast(device.type, torch.bfloat16, enabled=self._half)
        with half, last_hidden_states(self._model) as seen:
            self._output = self._model(**inputs, use_cache=True, logits_to_keep=1)
        self._states = seen[0][:, -1]
        self._cache = self._output.past_key_values


def _generate_batch(
    decoder: _Decoder,
    seeds: Sequence[int],
    config: SamplingConfig,
    end_ids: frozenset[int],
    value_head: ValueHead | None,
    device: torch.device,
) -> list[Generation]:
    steps = config.max_new_tokens
    uniforms = uniform_numbers(seeds, steps).to(device)  # [B, R]
    ends = torch.tensor(sorted(end_ids), dtype=torch.long, device=device)
    # Written one column per step while rows are live, and gathered when they leave.
    rows = len(seeds)
    tokens = torch.zeros(rows, steps, dtype=torch.long, device=device)
    logprobs, values = torch.zeros(2, rows, steps, device=device)
    lengths = torch.full((rows,), steps, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)

    live = torch.arange(rows, device=device)  # which rows the decoder holds
    done = torch.zeros(rows, dtype=torch.bool, device=device)  # of these, which have ended
    look_every = 1 if device.type == "cpu" else _LOOK_EVERY
    for step in range(steps):
        chosen, logprob = sample_tokens(decoder.logits(), uniforms[live, step], config)
        tokens[live, step], logprobs[live, step] = chosen, logprob
        if value_head is not None:
            values[live, step] = value_head(decoder.state).float()

        ending = torch.isin(chosen, ends) & ~done
        lengths[live] = lengths[live].masked_fill(ending, step + 1)
        finished[live] |= ending
        done = done | ending
        if step + 1 == steps:
            break
        if (step + 1) % look_every == 0:  # on a GPU, the host waits for its word here
            keep = (~done).nonzero().squeeze(1)
            if len(keep) == 0:
                break
            if 1 - len(keep) / len(done) >= _SHARE_DONE_TO_COMPACT:
                decoder.keep(keep)
                live, chosen, done = live[keep], chosen[keep], done[keep]
        decoder.step(chosen)
    drawn = Drawn(tokens, logprobs, values, lengths, finished)
    return _generations(drawn, has_values=value_head is not None)


def _generations(drawn: Drawn, *, has_values: bool) -> list[Generation]:
    """Return responses, read from the device at once."""
    tokens, logprobs, values, lengths, finished = (tensor.tolist() for tensor in drawn)
    return [
        Generation(
            tokens[row][:length],
            logprobs[row][:length],
            finished[row],
            values[row][:length] if has_values else None,
        )
        for row, length in enumerate(lengths)
    ]


def sample_tokens(
    logits: Tensor, uniforms: Tensor, config: SamplingConfig
) -> tuple[Tensor, Tensor]:
    """Draw one token per row, [B], as a config says; see `plumbline.lm.drawing.draw_tokens`."""
    return draw_tokens(logits, uniforms, config.temperature, config.top_k, config.top_p)
