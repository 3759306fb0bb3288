"""Trainings whose processes share the weights: loading, and what is computed over all shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plumbline.errors import ConfigError
from plumbline.lm.sharding import (
    as_held,
    connect,
    is_share,
    loading_on_cpu,
    local,
    put,
    shares_weights,
    split,
)
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.tuning_methods import TUNING_METHODS
from plumbline.runs.processes import in_turns, of_all_processes, sharding, sums_of_all
from plumbline.runs.shardings import DDP, SHARDINGS
from plumbline.training.optimizers import OPTIMIZERS
from plumbline.training.zero import ZeroOptimizer

P = TypeVar("P")
R = TypeVar("R")


def loaded(load: Callable[[], Any], tuning: TuningConfig, *, bfloat16: bool) -> Any:
    """Return a model that ``load`` loads; where weights are shared out, with this process's share.

    ``bfloat16``: whether passes compute in that format.
    """
    check_tuning(tuning)
    if not shares_weights():
        return load()
    with one_by_one():
        model = load()
        split(model, bfloat16=bfloat16)
    connect(model)
    return model


@contextmanager
def one_by_one() -> Iterator[None]:
    """Let processes that share weights load models one after the other, on the CPU.

    So that the machine holds one whole model at a time, and no GPU does. Does nothing elsewhere.
    """
    if not shares_weights():
        yield
        return
    with in_turns(), loading_on_cpu():
        yield


def check_tuning(tuning: TuningConfig) -> None:
    """Raise `ConfigError` for a way of tuning whose weights cannot be shared out."""
    if sharding() is not None and not tuning.row.can_share:
        raise ConfigError(
            f"tuning.method is {tuning.method}, whose weights cannot be shared out (--launch "
            f"{sharding()}). Set it to {TUNING_METHODS.where(lambda row: row.can_share)}, or use "
            "--launch ddp."
        )
    if tuning.unfreezes_by is not None:
        refuse_shares("tuning.unfreezes_by")


def check_optimizer(name: str) -> None:
    """Raise `ConfigError` for an optimizer that was never tried on shares."""
    if not OPTIMIZERS[name].can_share:
        refuse_shares(f"optimizer {name}")


def refuse_shares(what: str) -> None:
    """Raise `ConfigError` for what cannot be done where weights are shared out."""
    if sharding() is not None:
        raise ConfigError(
            f"--launch {sharding()} shares the weights out, and with that there is no {what}. Use "
            "--launch ddp."
        )


def equal_passes(read: Callable[[P], R], parts: Sequence[P], *, spare: P) -> list[R]:
    """Return what ``read`` makes of each part of this process.

    Where weights are shared out, all processes must make as many passes: one with fewer parts reads
    the ``spare`` part for the rest, for nothing.
    """
    missing = missing_passes(len(parts))
    results = [read(part) for part in parts]
    for _ in range(missing):
        read(spare)
    return results


def missing_passes(count: int) -> int:
    """Return how many more passes another process will make, where weights are shared out; else 0.

    All processes ask this before their first pass.
    """
    return 0 if sharding() is None else max(of_all_processes(count)) - count


def sharded(optimizer: Optimizer, *, sums: bool = False) -> Optimizer:
    """Return an optimiser whose gradients and moments are shared out as the stage was asked to.

    ``sums``: gradients are sums over the processes, and not means. FSDP2 has that of `connect`.
    """
    stage = _zero_stage()
    return optimizer if stage is None else ZeroOptimizer(optimizer, stage, sums=sums)


def _zero_stage() -> int | None:
    return SHARDINGS[sharding() or DDP].zero_stage


def prepared(loss: Tensor, *optimizers: Optimizer) -> Tensor:
    """Return a loss whose backward pass adds to the gradients of these optimisers."""
    for optimizer in optimizers:
        if isinstance(optimizer, ZeroOptimizer):
            loss = optimizer.prepared(loss)
    return loss


def left_to_sum(weights: Iterable[Tensor]) -> list[Tensor]:
    """Return those weights whose gradients a backward pass leaves to each process."""
    if _zero_stage() is not None:
        return []
    return [weight for weight in weights if not is_share(weight)]


def assign(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give weights the values of a checkpoint, which may be whole where weights are in shares."""
    for name, value in values.items():
        put(value, weights[name])


def moments_of(optimizer: Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """Return what an optimiser has kept for each weight, by the weight's name."""
    return {name: optimizer.state[p] for name, p in weights.items() if p in optimizer.state}


def load_moments(
    optimizer: Optimizer, weights: Mapping[str, nn.Parameter], moments: Mapping[str, Any]
) -> None:
    """Restore what `moments_of` returned, however weights were held then."""
    numbers = {id(p): n for n, p in enumerate(_weights_of(optimizer))}
    state = {
        numbers[id(weights[name])]: _as_held(kept, weights[name]) for name, kept in moments.items()
    }
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimiser's state dict, however its weights were held then."""
    if sharding() is not None:
        kept = zip(_weights_of(optimizer), _numbers_in(state), strict=True)
        held = {n: _as_held(state["state"][n], weight) for weight, n in kept if n in state["state"]}
        state = state | {"state": held}
    optimizer.load_state_dict(state)


def _weights_of(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _numbers_in(state: Mapping[str, Any]) -> list[int]:
    return [number for group in state["param_groups"] for number in group["params"]]


def _as_held(kept: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
    """Return what an optimiser has kept for a weight: of the weight's shape, as that is held."""
    return {
        name: as_held(value, weight)
        if isinstance(value, Tensor) and value.shape == weight.shape
        else value
        for name, value in kept.items()
    }


@torch.no_grad()
def clip_gradients(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], largest: float
) -> Tensor:
    """Scale gradients down to a norm of ``largest``; return their norm before, [].

    Some weights may be in shares and others whole in each process.
    """
    if isinstance(optimizer, ZeroOptimizer):
        return optimizer.clip(largest)
    kept = [p for p in parameters if p.grad is not None]
    if not any(hasattr(p, "device_mesh") for p in kept):
        return nn.utils.clip_grad_norm_(kept, largest)
    norm = norm_of([p.grad for p in kept if p.grad is not None])
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)  # as in torch
    for parameter in kept:
        assert parameter.grad is not None
        local(parameter.grad).mul_(scale)
    return norm


def norm_of(tensors: Iterable[Tensor]) -> Tensor:
    """Return the norm of all tensors together, [], where some are in shares; in all processes."""
    kept = list(tensors)
    if not kept:
        return torch.zeros(())
    zero = torch.zeros((), device=local(kept[0]).device)
    shared, own = zero.clone(), zero.clone()
    for tensor in kept:
        (shared if hasattr(tensor, "device_mesh") else own).add_(
            local(tensor).float().square().sum()
        )
    if sharding() is not None:
        (shared,) = sums_of_all([shared])
    return (shared + own).sqrt()
