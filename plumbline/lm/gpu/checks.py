"""Whether a model's packed pass is right here: compared with the plain one on a few tokens, once.

The comparison is made for each kind of device, architecture, number format and kind of weights
that train, at the first use. Where the two differ, or the fast one fails, the plain pass is taken
from then on, with a message.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from plumbline.lm.backbone import backbone
from plumbline.lm.batches import Batch, collate
from plumbline.lm.gpu.packing import pack
from plumbline.lm.gpu.regions import compiles, uncompiled
from plumbline.lm.gpu.states import compute_dtype, packed_states, unknown_part
from plumbline.lm.gpu.status import FastPath, finding, switch_off, switch_on
from plumbline.lm.sharding import in_shares

#: Errors of states and of gradients, relative to their size, that pass for rounding: in 16 bits,
#: and in more.
_FEW_BITS, _MANY_BITS = (0.02, 0.05), (1e-3, 1e-2)
#: In 16 bits the error of one pass may be so many times that of the other.
_TIMES = 3.0

#: Where a decoder keeps transformers' own ``forward``, if its place is taken by a packed one.
PLAIN_FORWARD = "_plain_forward"

_known: WeakKeyDictionary[Any, dict[tuple[object, ...], str | None]] = WeakKeyDictionary()


def has_packed_pass(model: Any, *, anywhere: bool = False) -> bool:
    """Return whether a model is to be read by packed passes: on a GPU, known, and found right.

    ``anywhere``: on a CPU, too, for tests.
    """
    trunk = backbone(model)
    device = trunk.embed_tokens.weight.device if hasattr(trunk, "embed_tokens") else model.device
    if (device.type != "cuda" and not anywhere) or in_shares(model):
        return False
    reason = _reason_of(model)
    kind = kind_of(model)
    if reason is not None:
        switch_off(FastPath.PASSES, device, reason, kind)
        return False
    if finding(FastPath.PASSES, device, kind) is None:
        with torch.enable_grad():
            _compare(model, device, kind)
    result = finding(FastPath.PASSES, device, kind)
    return result is not None and result.on


def _reason_of(model: Any) -> str | None:
    """Return why a model is of no known kind; looked at once for each set of adapters."""
    adapters = tuple(model.peft_config) if hasattr(model, "peft_config") else ()
    reasons = _known.setdefault(model, {})
    key = (model.training, adapters)
    if key not in reasons:
        reasons[key] = unknown_part(model)
    return reasons[key]


def kind_of(model: Any) -> str:
    """Return what is checked once: the architecture, the number format, and adapters or none."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    how = "with adapters" if whole is not model else "whole"
    trunk = backbone(model)
    if not hasattr(trunk, "embed_tokens"):
        return f"{type(whole).__name__}, {how}"
    return f"{type(whole).__name__}, {str(compute_dtype(trunk)).removeprefix('torch.')}, {how}"


class _Reading(NamedTuple):
    """The result of one pass over a few rows."""

    states: Tensor
    gradient: Tensor
    """Of some weights, behind each other; empty where nothing trains."""


def _compare(model: Any, device: torch.device, kind: str) -> None:
    """Compare states and gradients of the two passes; note what was found.

    Where a compiled layer is at fault, the pass is tried again without compilation.
    """
    good, reason = _agree(model)
    if not good and compiles(device):
        switch_off(FastPath.COMPILED, device, reason, "decoder_layer")
        good, reason = _agree(model)
    if good:
        switch_on(FastPath.PASSES, device, kind, reason)
    else:
        switch_off(FastPath.PASSES, device, reason, kind)


def _agree(model: Any) -> tuple[bool, str]:
    """Return whether the two passes agree, and what was found.

    In 16 bits both differ from the exact pass by rounding alone if their errors are alike, with our
    pass in float32 as the measure. Were our formula wrong, the plain pass would seem to be far off;
    were a kernel wrong, ours would.
    """
    batch, parameters = _few_rows(model), some_parameters(model)
    try:
        fast = _read(packed_states(model, pack(batch)), parameters)
        plain = _read(_plain_states(model, batch), parameters)
        if compute_dtype(backbone(model)).itemsize > 2:
            errors = [_relative(*pair) for pair in zip(fast, plain, strict=True)]
            good = all(error < most for error, most in zip(errors, _MANY_BITS, strict=True))
        else:
            with uncompiled():
                exact = _read(packed_states(model, pack(batch), dtype=torch.float32), parameters)
            errors, good = [], True
            for floor, packed, other, right in zip(_FEW_BITS, fast, plain, exact, strict=True):
                error, other_error = _relative(packed, right), _relative(other, right)
                errors.append(_relative(packed, other))
                good &= error < floor + _TIMES * other_error
                good &= other_error < floor + _TIMES * error
    except Exception as error:  # no failure of a fast path may stop the run
        return False, f"it failed: {type(error).__name__}: {error}"
    return (
        good,
        f"states are off by {errors[0]:.1e} of the plain ones, gradients by {errors[1]:.1e}",
    )


def _read(states: Tensor, parameters: list[Tensor]) -> _Reading:
    """Return states, and the gradient of a sum in which every number counts differently."""
    if not parameters or not states.requires_grad:
        return _Reading(states.detach().float(), states.new_zeros(0))
    weights = torch.linspace(-1, 1, states.numel(), device=states.device).sin().view(states.shape)
    loss = (states.float() * weights).sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [
        torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
    return _Reading(states.detach().float(), torch.cat([gradient.float() for gradient in flat]))


def _few_rows(model: Any) -> Batch:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = [
        [1 + (5 * n + 11 * row) % (vocabulary - 1) for n in range(4 + 7 * row)] for row in range(3)
    ]
    batch = collate([row[:-2] for row in rows], [row[-2:] for row in rows], 0)
    return batch


def some_parameters(model: Any) -> list[Tensor]:
    """Return weights that train, of the first and of the last layer."""
    layers = backbone(model).layers
    ends = [layers[0], layers[-1]]
    return [p for layer in ends for p in layer.parameters() if p.requires_grad]


def _plain_states(model: Any, batch: Batch) -> Tensor:
    """Return the states before the response tokens, [M, D], by the model's own pass."""
    trunk = backbone(model)
    weight = trunk.embed_tokens.weight
    batch = batch.to(weight.device)
    kind, dtype = weight.device.type, compute_dtype(trunk)
    # A trainer's autocast may keep casts of weights for its next pass, and shall keep none of ours.
    alone = torch.autocast(
        kind, dtype, enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )
    with alone:
        hidden: Tensor = getattr(trunk, PLAIN_FORWARD, trunk)(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
    return hidden[:, -batch.response_mask.shape[1] - 1 : -1][batch.response_mask]


def _relative(value: Tensor, other: Tensor) -> float:
    if not other.numel():
        return 0.0
    error = float((value - other).norm() / other.norm())
    return error if math.isfinite(error) else math.inf
