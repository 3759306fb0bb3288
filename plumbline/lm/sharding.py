"""A model whose weights are shared out: each process holds a share of every weight (FSDP2).

It is torch's own `fully_shard`, with a group for each decoder layer and one for the rest. A layer's
weights are gathered for its pass and given up after it. So every pass begins with a call of the
whole model, or inside `through_root`, and all processes make the same passes. What reads weights by
itself (sampling from a snapshot, our own passes) does so while the weights are `gathered`.

accelerate could do this, too, but not without a GPU. So what is tested would not be what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from plumbline.errors import ModelError
from plumbline.lm.backbone import backbone
from plumbline.runs.processes import mesh, sharding
from plumbline.runs.shares import KeptInShares

T = TypeVar("T")

_IN_SHARES, _PASS = "_weights_are_in_shares", "run_in_shares"
_on_cpu: ContextVar[bool] = ContextVar("loads_on_cpu", default=False)


def shares_weights() -> bool:
    """Return whether each process of this stage is to hold a share of the weights only."""
    return sharding() is not None and sharding() != "zero2"


def in_shares(model: Any) -> bool:
    """Return whether each process holds a share of the model's weights only, at this moment."""
    return bool(getattr(backbone(model), _IN_SHARES, False))


def loads_on_cpu() -> bool:
    """Return whether models are loaded to be shared out, so that no GPU holds the whole of one."""
    return _on_cpu.get()


@contextmanager
def loading_on_cpu() -> Iterator[None]:
    """Load models on the CPU while the block runs."""
    token = _on_cpu.set(True)
    try:
        yield
    finally:
        _on_cpu.reset(token)


def split(model: Any, *, bfloat16: bool) -> None:
    """Keep this process's share of a model's weights, on its device. Nothing is sent.

    ``bfloat16``: weights are gathered and computed with in that format. Gradients are summed in the
    format of the weights. `connect` follows, in all processes.

    Raises `ModelError` for a model without a list of decoder layers.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    layers = getattr(backbone(model), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(
            f"{type(model).__name__} has no list of decoder layers, by which its weights could be "
            "shared out. Train it with --launch ddp."
        )
    formats = (torch.bfloat16, torch.float32) if bfloat16 else (None, None)
    options: dict[str, Any] = {
        "mesh": mesh(),
        "mp_policy": MixedPrecisionPolicy(param_dtype=formats[0], reduce_dtype=formats[1]),
        "reshard_after_forward": True,
    }
    for layer in layers:
        fully_shard(layer, **options)
    fully_shard(model, **options)


def connect(model: Any, *, sums: bool = False) -> None:
    """Make a model that was split ready for passes; all processes do so together.

    ``sums``: a gradient is the sum of those of all processes, and not their mean.
    """
    from torch.distributed.fsdp import register_fsdp_forward_method

    setattr(model, _PASS, lambda function: function())
    register_fsdp_forward_method(model, _PASS)
    setattr(backbone(model), _IN_SHARES, True)
    through_root(model, lambda: None)  # now the model is known to be the root of its layers
    for part in _parts(model):
        # A gathered weight keeps for good whether it trains. PEFT switches that with the adapter.
        part.unshard()
        part.reshard()
        if sums:
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # which gloo knows, too


def through_root(model: Any, function: Callable[[], T]) -> T:
    """Return what a function returns that makes one pass through parts of a model.

    Where weights are in shares, those outside the layers are gathered meanwhile. Everything that
    the pass computes for a loss must be among the tensors returned.
    """
    if not in_shares(model):
        return function()
    result: T = getattr(model, _PASS)(function)
    return result


@contextmanager
def gathered(*models: Any) -> Iterator[None]:
    """Let each process hold all weights of models while the block runs, for reading alone."""
    with ExitStack() as stack:
        for model in models:
            if in_shares(model):
                stack.enter_context(_gathered(model))
        yield


@contextmanager
def _gathered(model: Any) -> Iterator[None]:
    parts, trunk = _parts(model), backbone(model)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    setattr(trunk, _IN_SHARES, False)
    try:
        yield
    finally:
        setattr(trunk, _IN_SHARES, True)
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def whole_weights(
    model: Any, wanted: Callable[[str], bool] | None = None, *, keep: bool = True
) -> dict[str, Tensor] | None:
    """Return a model's weights by name, on the CPU, in the format in which they are held.

    None where they are not in shares. All processes call this; those with ``keep=False`` get an
    empty mapping. ``wanted``: whether a weight is.
    """
    if not in_shares(model):
        return None
    weights: dict[str, Tensor] = {}
    known: dict[int, Tensor] = {}  # tied weights stay one
    for name, value in model.state_dict(keep_vars=True).items():
        if wanted is not None and not wanted(name):
            continue
        if id(value) not in known:
            whole = value.full_tensor() if hasattr(value, "full_tensor") else value
            known[id(value)] = whole.detach().cpu() if keep else whole.new_empty(0)
        if keep:
            weights[name] = known[id(value)]
    return weights


def is_share(tensor: Tensor) -> bool:
    """Return whether this process holds a share of a tensor only."""
    return hasattr(tensor, "device_mesh")


def as_held(value: Tensor | KeptInShares, weight: Tensor) -> Tensor:
    """Return a value in the way in which a weight of its shape is held: in shares, or whole.

    Every process has all of a value that is whole. Nothing is sent.
    """
    if isinstance(value, KeptInShares):
        return value.whole()
    if not is_share(weight) or is_share(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = weight
    value = value.to(weight.device)
    return distribute_tensor(value, held.device_mesh, held.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """Return this process's share of a tensor; the whole of one that is not shared out."""
    share: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return share


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, of which each process has a share; all processes call this."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def problem_with_shares(model: Any) -> str | None:
    """Return why weights are not shared out as the stage was asked to; None if they are."""
    if not shares_weights():
        return (
            "its weights are in shares, and whole ones were asked for" if in_shares(model) else None
        )
    if not in_shares(model):
        return "each process has a whole copy of its weights"
    count = mesh().size()
    alone = [
        name
        for name, parameter in model.named_parameters()
        if not hasattr(parameter, "device_mesh") or parameter.device_mesh.size() != count
    ]
    if alone:
        return f"{len(alone)} of its weights are whole in each process, such as {alone[0]}"
    return None


def _parts(model: Any) -> list[Any]:
    """Return the modules by which weights are gathered, the model itself first."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
