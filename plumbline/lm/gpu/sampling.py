"""Sampling on a GPU: which decoder is used, how long it is kept, and whether it is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.lm.adapters import active_adapter
from plumbline.lm.decoding.snapshot import UnknownLayerError
from plumbline.lm.drawing import Drawn, draw_tokens
from plumbline.lm.gpu.decode_weights import DecodeWeights
from plumbline.lm.gpu.decoder import StaticDecoder
from plumbline.lm.gpu.packing import pack_padded
from plumbline.lm.gpu.passes import merged
from plumbline.lm.gpu.regions import free_rows, region, uncompiled
from plumbline.lm.gpu.states import packed_states, unknown_part
from plumbline.lm.gpu.status import FastPath, finding, switch_off, switch_on
from plumbline.lm.gpu.weights import linear
from plumbline.lm.virtual_tokens import virtual_tokens

#: A decoder is kept for the next call where it takes less than this share of the GPU's memory, so
#: that its graphs need not be captured again.
_SHARE_KEPT = 0.15
#: Largest error of the first logits, relative to their size, that passes for rounding.
_ERROR = {2: 0.02, 4: 1e-3, 8: 1e-6}  # by bytes per number
#: In 16 bits the error of one way may be so many times that of the other.
_TIMES = 3.0

_draw_tokens = region(draw_tokens)
_kept: WeakKeyDictionary[Any, StaticDecoder] = WeakKeyDictionary()


def static_decoder(
    model: Any, *, rows: int, columns: int, new_tokens: int, dtype: torch.dtype | None = None
) -> StaticDecoder | None:
    """Return a decoder with the weights that a model has now; None where there is none for it.

    It has room for ``rows`` texts of ``columns`` tokens, ``new_tokens`` of them new. ``dtype`` is
    that of decoding, None the model's own.
    """
    if virtual_tokens(model):
        return None
    device, kind = model.device, kind_of(model)
    known = finding(FastPath.DECODING, device, kind)
    if known is not None and not known.on:
        return None
    held = _kept.get(model)
    if held is not None and held.fits(rows, columns, new_tokens, dtype):
        held.weights.refresh(model)
        return held
    _kept.pop(model, None)
    try:
        weights = DecodeWeights(model, dtype)
    except UnknownLayerError:
        switch_off(FastPath.DECODING, device, "it is not one of the decoders that we know", kind)
        return None
    window = weights.snapshot.window
    if window is not None and columns > window:
        return None  # the plain way keeps the window, for these texts
    decoder = StaticDecoder(weights, rows, columns, new_tokens)
    if known is None and not _is_right(decoder, model, kind):
        return None
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        if decoder.bytes + weights.bytes < _SHARE_KEPT * total:
            _kept[model] = decoder
    return decoder


def generate_static(
    decoder: StaticDecoder,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    settings: tuple[float, int | None, float | None],
    end_ids: frozenset[int],
    value_head: Callable[[Tensor], Tensor] | None,
) -> Drawn:
    """Return a response to each prompt, drawn by ``uniforms`` [B, R].

    ``settings`` are temperature, top-k and top-p.
    """

    def draw(logits: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        free_rows(logits, numbers)
        return _draw_tokens(logits, numbers, *settings)

    return decoder.generate(prompts, uniforms, draw, end_ids, value_head, settings)


def kind_of(model: Any) -> str:
    """Return the name of a model's architecture."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(whole).__name__


@torch.no_grad()
def _is_right(decoder: StaticDecoder, model: Any, kind: str) -> bool:
    """Compare the first two steps of a few rows with the model's own logits.

    In 16 bits both are off by rounding, the more the deeper the model is. They agree where both are
    about as far from the logits of a pass in float32.
    """
    device = model.device
    vocabulary = model.get_input_embeddings().weight.shape[0]
    prompts = [
        [1 + (7 * row + 3 * place) % (vocabulary - 1) for place in range(3 + row)]
        for row in range(2)
    ]
    prompts = [prompt[: decoder.columns - 2] for prompt in prompts][: decoder.rows]
    seen: list[Tensor] = []

    def draw(logits: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(logits[: len(prompts)].float())
        return logits.argmax(-1), torch.zeros(len(logits), device=device)

    steps = min(2, decoder.new_tokens)
    uniforms = torch.zeros(len(prompts), steps, dtype=torch.float64)
    drawn = decoder.generate(prompts, uniforms, draw, frozenset(), None, ("check",))
    tokens = drawn.tokens[:, :steps].tolist()
    good, worst = True, 0.0
    for row, (prompt, response) in enumerate(zip(prompts, tokens, strict=True)):
        ids = torch.tensor([[*prompt, *response]], device=device)
        places = slice(len(prompt) - 1, len(prompt) - 1 + steps)
        ours = torch.stack([logits[row] for logits in seen])
        own = _own_logits(model, ids, decoder.dtype)[places]
        exact = _float32_logits(model, ids)[places] if decoder.dtype.itemsize == 2 else own
        error, own_error = _relative(ours, exact), _relative(own, exact)
        floor = _ERROR[decoder.dtype.itemsize]
        good &= error < floor + _TIMES * own_error and own_error < floor + _TIMES * error
        worst = max(worst, _relative(ours, own))
    if good:
        switch_on(FastPath.DECODING, device, kind, f"off by {worst:.1e} of the plain logits")
        return True
    switch_off(
        FastPath.DECODING,
        device,
        f"its first logits are off by {worst:.1e} of the plain ones",
        kind,
    )
    return False


def _own_logits(model: Any, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits [T, V] of a row [1, T] by the model's own pass, in a number format."""
    with torch.autocast(model.device.type, dtype, enabled=dtype.itemsize == 2):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits.float()


def _float32_logits(model: Any, ids: Tensor) -> Tensor:
    """Return the logits [T, V] of a row [1, T] in float32, in any number format of the weights."""
    if unknown_part(model) is not None:
        with torch.autocast(model.device.type, enabled=False):
            return _own_logits(model, ids, torch.float32)
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    with uncompiled():
        packing = pack_padded(ids, torch.ones_like(ids))
        states = packed_states(model, packing, dtype=torch.float32)
    with torch.autocast(model.device.type, enabled=False):
        weight, bias = merged(linear(whole.get_output_embeddings(), (active_adapter(model),)))
        return F.linear(states, weight.float(), None if bias is None else bias.float())


def _relative(logits: Tensor, exact: Tensor) -> float:
    error = float((logits - exact).norm() / exact.norm())
    return error if math.isfinite(error) else math.inf
