"""Whether a model's packed pass is right where responses share a prompt: compared once.

`plumbline.lm.gpu.checks` compares the packed pass with the model's own. Here it is compared with
itself, on responses that share a prompt and on the same behind prompts of their own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.batches import collate
from plumbline.lm.gpu.checks import has_packed_pass, kind_of, some_parameters
from plumbline.lm.gpu.packing import Packing, pack, pack_branches
from plumbline.lm.gpu.states import packed_states
from plumbline.lm.gpu.status import FastPath, finding, switch_off, switch_on

#: Errors relative to the size of states and gradients that pass for rounding, by bytes per number.
_ERRORS = {2: 0.05, 4: 1e-3, 8: 1e-6}


def has_branch_pass(model: Any, *, anywhere: bool = False) -> bool:
    """Return whether responses that share a prompt are to be read by one packed pass.

    ``anywhere``: on a CPU, too, for tests.
    """
    if not has_packed_pass(model, anywhere=anywhere):
        return False
    device, kind = model.device, kind_of(model)
    if finding(FastPath.BRANCHES, device, kind) is None:
        try:
            with torch.enable_grad():
                worst, allowed = _error(model)
        except Exception as error:  # no failure of a fast path may stop the run
            switch_off(FastPath.BRANCHES, device, f"{type(error).__name__}: {error}", kind)
        else:
            message = f"it is off by {worst:.1e} of responses behind prompts of their own"
            if worst < allowed:
                switch_on(FastPath.BRANCHES, device, kind, message)
            else:
                switch_off(FastPath.BRANCHES, device, message, kind)
    known = finding(FastPath.BRANCHES, device, kind)
    return known is not None and known.on


def _error(model: Any) -> tuple[float, float]:
    """Return the largest relative error of states and gradients, and what passes for rounding."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    texts = [
        [1 + (7 * n + 13 * row) % (vocabulary - 1) for n in range(9 + row)] for row in range(6)
    ]
    prompts, responses = texts[:2], [texts[2:4], texts[4:]]
    shared = pack_branches(prompts, responses)
    apart = pack(collate([p for p in prompts for _ in range(2)], texts[2:], 0))
    parameters = some_parameters(model)
    joint, separate = (_read(model, packing, parameters) for packing in (shared, apart))
    errors = [
        float((a - b).norm() / b.norm().clamp(min=1e-12))
        for a, b in zip(joint, separate, strict=True)
    ]
    worst = max(errors)
    return worst if math.isfinite(worst) else math.inf, _ERRORS[joint[2].itemsize]


def _read(model: Any, packing: Packing, parameters: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return states, the gradient of a sum in which every number counts differently, and states."""
    states = packed_states(model, packing)
    if not parameters or not states.requires_grad:
        return states.detach().float(), states.detach().float(), states.detach()
    weights = torch.linspace(-1, 1, states.numel(), device=states.device).sin().view(states.shape)
    gradients = torch.autograd.grad((states.float() * weights).sum(), parameters, allow_unused=True)
    flat = torch.cat([g.flatten().float() for g in gradients if g is not None])
    return states.detach().float(), flat, states.detach()
