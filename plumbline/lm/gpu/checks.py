"""Whether a model's packed pass is right here: compared with the plain one on a few tokens, once.

The comparison is made for each kind of device, architecture, number format and kind of weights
that train, at the first use. Where the two differ, or the fast one fails, the plain pass is taken
from then on, with a message.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from plumbline.lm.batches import Batch, collate
from plumbline.lm.gpu.packing import pack
from plumbline.lm.gpu.states import compute_dtype, packed_states, unknown_part
from plumbline.lm.gpu.status import FastPath, finding, switch_off, switch_on
from plumbline.lm.trunk import backbone

#: Largest error of states and of gradients, relative to their size, that passes for rounding, by
#: bytes per number.
_STATES_ERROR = {2: 0.05, 4: 1e-3, 8: 1e-6}
_GRADIENT_ERROR = {2: 0.2, 4: 1e-2, 8: 1e-5}

_known: WeakKeyDictionary[Any, dict[tuple[object, ...], str | None]] = WeakKeyDictionary()


def has_packed_pass(model: Any, *, anywhere: bool = False) -> bool:
    """Return whether a model is to be read by packed passes: on a GPU, known, and found right.

    ``anywhere``: on a CPU, too, for tests.
    """
    trunk = backbone(model)
    device = trunk.embed_tokens.weight.device if hasattr(trunk, "embed_tokens") else model.device
    if device.type != "cuda" and not anywhere:
        return False
    reason = _reason_of(model)
    kind = _kind(model)
    if reason is not None:
        switch_off(FastPath.PASSES, device, reason, kind)
        return False
    if finding(FastPath.PASSES, device, kind) is None:
        _compare(model, device, kind)
    found = finding(FastPath.PASSES, device, kind)
    return found is not None and found.on


def _reason_of(model: Any) -> str | None:
    """Return why a model is of no known kind; looked at once for each set of adapters."""
    adapters = tuple(model.peft_config) if hasattr(model, "peft_config") else ()
    reasons = _known.setdefault(model, {})
    key = (model.training, adapters)
    if key not in reasons:
        reasons[key] = unknown_part(model)
    return reasons[key]


def _kind(model: Any) -> str:
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    dtype = str(compute_dtype(backbone(model))).removeprefix("torch.") if hasattr(backbone(model), "embed_tokens") else "?"
    how = "with adapters" if whole is not model else "whole"
    return f"{type(whole).__name__}, {dtype}, {how}"


def _compare(model: Any, device: torch.device, kind: str) -> None:
    """Compare states and gradients of the two passes; note what was found."""
    try:
        states_error, gradient_error = _errors(model)
    except Exception as error:  # whatever fails in a fast path must not stop the run
        switch_off(FastPath.PASSES, device, f"it failed: {type(error).__name__}: {error}", kind)
        return
    size = compute_dtype(backbone(model)).itemsize
    told = f"states are off by {states_error:.1e} of the plain ones, gradients by {gradient_error:.1e}"
    if states_error < _STATES_ERROR[size] and gradient_error < _GRADIENT_ERROR[size]:
        switch_on(FastPath.PASSES, device, kind, told)
    else:
        switch_off(FastPath.PASSES, device, told, kind)


def _errors(model: Any) -> tuple[float, float]:
    """Return the relative errors of states and of gradients (0 where nothing trains)."""
    batch = _few_rows(model)
    parameters = _some_parameters(model)
    with torch.enable_grad() if parameters else torch.no_grad():
        fast = packed_states(model, pack(batch))
        plain = _plain_states(model, batch)
    states_error = _relative(fast, plain)
    if not parameters or not plain.requires_grad:
        return states_error, 0.0
    weights = torch.linspace(-1, 1, plain.numel(), device=plain.device).sin().view(plain.shape)
    found, expected = (
        torch.autograd.grad((states.float() * weights).sum(), parameters, allow_unused=True)
        for states in (fast, plain)
    )
    if [one is None for one in found] != [one is None for one in expected]:
        return states_error, float("inf")
    of_fast, of_plain = (
        torch.cat([gradient.float().flatten() for gradient in some if gradient is not None])
        for some in (found, expected)
    )
    return states_error, _relative(of_fast, of_plain)


def _few_rows(model: Any) -> Batch:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    rows = [[1 + (5 * n + 11 * row) % (vocabulary - 1) for n in range(4 + 7 * row)] for row in range(3)]
    batch = collate([row[:-2] for row in rows], [row[-2:] for row in rows], 0)
    return batch


def _some_parameters(model: Any) -> list[Tensor]:
    """Return weights that train, of the first and of the last layer."""
    layers = backbone(model).layers
    ends = [layers[0], layers[-1]]
    return [p for layer in ends for p in layer.parameters() if p.requires_grad]


def _plain_states(model: Any, batch: Batch) -> Tensor:
    """Return the states before the response tokens, [M, D], by the model's own pass."""
    trunk = backbone(model)
    batch = batch.to(trunk.embed_tokens.weight.device)
    hidden: Tensor = trunk(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden[:, -batch.response_mask.shape[1] - 1 : -1][batch.response_mask]


def _relative(one: Tensor, other: Tensor) -> float:
    one, other = one.detach().float(), other.detach().float()
    error = float((one - other).norm() / other.norm())
    return error if error == error else float("inf")
