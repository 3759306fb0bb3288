"""A model whose weights are shared out: each process holds a share of every weight.

`SHARDINGS` names the ways. A part of the weights is gathered for its pass and given up after it. So
all processes make the same passes. What reads weights by itself (sampling from a snapshot, our own
passes) does so while the weights are `gathered`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from plumbline.lm.backbone import backbone
from plumbline.lm.fsdp2 import FSDP2
from plumbline.lm.zero3 import Zero3, part_of
from plumbline.runs.processes import mesh, number_of_processes, sharding
from plumbline.runs.shardings import DDP, SHARDINGS
from plumbline.runs.shares import KeptInShares, Share

T = TypeVar("T")

_FSDP2, _ZERO3 = FSDP2(), Zero3()
_IN_SHARES = "_weights_are_in_shares"
_on_cpu: ContextVar[bool] = ContextVar("loads_on_cpu", default=False)


def shares_weights() -> bool:
    """Return whether each process of this stage is to hold a share of the weights only."""
    return SHARDINGS[sharding() or DDP].weights


def in_shares(model: Any) -> bool:
    """Return whether each process holds a share of the model's weights only, at this moment."""
    return bool(getattr(backbone(model), _IN_SHARES, False))


def casts(model: Any) -> bool:
    """Return whether a model computes in bfloat16 by itself, where a training does."""
    return in_shares(model) and _way().casts


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
    """Keep this process's share of a model's weights, as far as nothing has to be sent for it.

    ``bfloat16``: whether passes compute in that format. `connect` follows, in all processes.

    Raises `ModelError` for a model that cannot be shared out.
    """
    _way().split(model, bfloat16=bfloat16)


def connect(model: Any, *, sums: bool = False) -> None:
    """Make a model that was split ready for passes; all processes do so together.

    ``sums``: a gradient is the sum of those of all processes, and not their mean.
    """
    _way().connect(model, sums=sums)
    setattr(backbone(model), _IN_SHARES, True)


def connect_head(head: nn.Module) -> None:
    """Make a head beside the models ready for passes; all processes do so together."""
    _way().connect_head(head)


def through_root(model: Any, function: Callable[[], T]) -> T:
    """Return what a function returns that makes one pass through parts of a model.

    Where weights are in shares, those that the pass needs are gathered meanwhile. Everything that
    the pass computes for a loss must be among the tensors returned.
    """
    return _way().run(model, function) if in_shares(model) else function()


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
    with _way().gathered(model):
        setattr(backbone(model), _IN_SHARES, False)
        try:
            yield
        finally:
            setattr(backbone(model), _IN_SHARES, True)


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
            all_of_it = whole(value)
            known[id(value)] = all_of_it.detach().cpu() if keep else all_of_it.new_empty(0)
        if keep:
            weights[name] = known[id(value)]
    return weights


def is_share(tensor: Any) -> bool:
    """Return whether this process holds a share of a tensor only."""
    return hasattr(tensor, "device_mesh") or hasattr(tensor, "ds_tensor")


def as_held(value: Tensor | KeptInShares, weight: Tensor) -> Tensor:
    """Return a value in the way in which a weight of its shape is held: by rows, or whole.

    Every process has all of a value that is whole, and all call this together.
    """
    if isinstance(value, KeptInShares):
        return value.whole()
    if not hasattr(weight, "device_mesh"):
        return whole(value)
    if is_share(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    held: Any = weight
    value = value.to(weight.device)
    return distribute_tensor(value, held.device_mesh, held.placements, src_data_rank=None)


@torch.no_grad()
def put(value: Tensor | Share | KeptInShares, weight: Any) -> None:
    """Give a weight a value, which may be whole where this process holds a share, or kept."""
    if not hasattr(weight, "ds_tensor"):
        assert not isinstance(value, Share)
        weight.data.copy_(as_held(value, weight))
        return
    part, start = part_of(weight)
    part.copy_(numbers_of(value, start, start + len(part)))


def numbers_of(value: Tensor | Share | KeptInShares, start: int, stop: int) -> Tensor:
    """Return some numbers of a tensor, [N], in row-major order; a `Share` is of these alone."""
    if isinstance(value, Share):
        return value.values
    if isinstance(value, KeptInShares):
        return value.part(start, stop)
    return value.reshape(-1)[start:stop]


def held(weight: Any) -> Tensor | Share:
    """Return what this process holds of a weight, in a form that can be kept."""
    if not hasattr(weight, "ds_tensor"):
        return weight  # type: ignore[no-any-return]
    part, start = part_of(weight)
    return Share(part, start, tuple(weight.ds_shape))


def copy_of(weight: Any, device: str | None = None) -> Tensor | Share:
    """Return a copy of what this process holds of a weight. A whole one may go to a device."""
    own = held(weight)
    if isinstance(own, Share):
        return own._replace(values=own.values.clone())
    if device is None or is_share(own):
        return own.detach().clone()
    return own.detach().to(device, copy=True)


def size_of(weight: Any) -> int:
    """Return how many numbers a weight has, in all processes together."""
    return int(weight.ds_numel if hasattr(weight, "ds_numel") else weight.numel())


def local(tensor: Any) -> Tensor:
    """Return this process's share of a tensor; the whole of one that is not shared out."""
    if hasattr(tensor, "ds_tensor"):
        return part_of(tensor)[0]  # type: ignore[no-any-return]
    share: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return share


def whole(tensor: Any) -> Tensor:
    """Return all of a tensor, of which each process has a share; all processes call this."""
    if hasattr(tensor, "ds_tensor"):
        return _whole_of(tensor)
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def _whole_of(weight: Any) -> Tensor:
    """Return a copy of all of a weight of which DeepSpeed has shared out the numbers."""
    part, _ = part_of(weight)
    padded = part.new_zeros(int(weight.partition_numel()))
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(number_of_processes())]
    torch.distributed.all_gather(parts, padded)
    return torch.cat(parts)[: int(weight.ds_numel)].view(tuple(weight.ds_shape))


def problem_with_shares(model: Any) -> str | None:
    """Return why weights are not shared out as the stage was asked to; None if they are."""
    if not shares_weights():
        return (
            "its weights are in shares, and whole ones were asked for" if in_shares(model) else None
        )
    if not in_shares(model):
        return "each process has a whole copy of its weights"
    alone = [name for name, weight in model.named_parameters() if not _is_shared_by_all(weight)]
    if alone:
        return f"{len(alone)} of its weights are whole in each process, such as {alone[0]}"
    return None


def _is_shared_by_all(weight: Any) -> bool:
    """Return whether each process of the stage holds a part of a weight."""
    if hasattr(weight, "ds_tensor"):
        most = -(-int(weight.ds_numel) // number_of_processes())
        return bool(weight.numel() == 0 and weight.ds_tensor.numel() <= most)
    return hasattr(weight, "device_mesh") and bool(weight.device_mesh.size() == mesh().size())


def _way() -> FSDP2 | Zero3:
    return _FSDP2 if SHARDINGS[sharding() or DDP].by_rows else _ZERO3
