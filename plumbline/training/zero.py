"""DeepSpeed's ZeRO: processes that share gradients and the moments of AdamW, and perhaps weights.

Rajbhandari et al. (2020), https://arxiv.org/abs/1910.02054. A training asks DeepSpeed for three
things alone: to sum and share out the gradients of backward passes, to step, and (stage 3) to
gather weights for passes. Losses, clipping, schedules and checkpoints stay those of every training.
So a loss goes through `ZeroOptimizer.prepared` before its backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from plumbline.errors import ModelError
from plumbline.lm.sharding import numbers_of, size_of
from plumbline.lm.zero3 import give_up_leftovers, import_deepspeed, part_of, settings
from plumbline.runs.processes import number_of_processes, sums_of_all
from plumbline.runs.shares import Share


class ZeroOptimizer(Optimizer):
    """An optimiser of whose gradients and moments each process holds its share, by DeepSpeed.

    It takes the place of ``optimizer``, which DeepSpeed then steps. Its state dict has the form of
    any other one, with a `Share` for each tensor. Its weights are then held in float32. ``sums``:
    gradients are sums over the processes, and not means.
    """

    def __init__(self, optimizer: Optimizer, stage: int, *, sums: bool = False) -> None:
        super().__init__([dict(group) for group in optimizer.param_groups], optimizer.defaults)
        self._inner = optimizer
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            weight.data = weight.data.float()
        self._engine = import_deepspeed().initialize(
            model=_Weights(weights),
            optimizer=optimizer,
            config=settings(stage),
            dist_init_required=False,
        )[0]
        self._zero = self._engine.optimizer
        self._parts: _Parts = (_PartsOfGroups if stage == 2 else _PartsOfWeights)(self._zero)
        self._factor = float(number_of_processes()) if sums else 1.0
        self._finished = False
        self._check(weights)

    def _check(self, weights: list[nn.Parameter]) -> None:
        """Raise `ModelError` where a process would keep more than its share."""
        own = sum(self._parts.count(weight) for weight in weights)
        total = sum(size_of(weight) for weight in weights)
        most = -(-total // number_of_processes()) + len(weights) + 4 * len(self.param_groups)
        if own > most:
            raise ModelError(
                f"Nothing was trained: DeepSpeed gave this process {own} of {total} moments, more "
                f"than its share among {number_of_processes()} processes."
            )

    def prepared(self, loss: Tensor) -> Tensor:
        """Return a loss whose backward pass adds to this optimiser's gradients."""
        self._finished = False
        give_up_leftovers()
        prepared: Tensor = self._engine(loss)
        return prepared

    @torch.no_grad()
    def clip(self, largest: float) -> Tensor:
        """Scale gradients down to a norm of ``largest``; return their norm before, []."""
        gradients = self._gradients()
        squares = [gradient.square().sum() for gradient in gradients]
        own = torch.stack(squares).sum() if squares else torch.zeros(())
        norm = sums_of_all([own.to(self._device)])[0].sqrt() * self._factor
        scale = (largest / (norm + 1e-6)).clamp(max=1.0) * self._factor  # as in torch
        for gradient in gradients:
            gradient.mul_(scale)
        return norm

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients, which were clipped, and drop them."""
        give_up_leftovers()
        if closure is not None:
            raise ValueError("an optimiser of DeepSpeed takes no closure")
        if not self._finished:
            raise ValueError("gradients are clipped before each step")
        held = [group for group in self.param_groups if group["params"]]  # DeepSpeed drops others
        for own, inner in zip(held, self._inner.param_groups, strict=True):
            inner.update({name: value for name, value in own.items() if name != "params"})
        self._zero.step()
        self.zero_grad()
        self._show_state()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        self._parts.drop_gradients()
        self._finished = False

    def state_dict(self) -> dict[str, Any]:
        """Return the moments, a `Share` each, and the settings, in torch's form."""
        numbers = {id(weight): n for n, weight in enumerate(self._weights())}
        return {
            "state": {numbers[id(weight)]: dict(kept) for weight, kept in self.state.items()},
            "param_groups": [
                {**group, "params": [numbers[id(weight)] for weight in group["params"]]}
                for group in self.param_groups
            ],
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up a state dict, also of an optimiser that shared nothing; and weights as they are.

        Its tensors may be whole, or a `Share` of this process.
        """
        for own, kept in zip(self.param_groups, state_dict["param_groups"], strict=True):
            own.update({name: value for name, value in kept.items() if name != "params"})
        self._zero.refresh_fp32_params()
        self._inner.state.clear()
        self.state.clear()
        weights = list(self._weights())
        for number, kept in state_dict["state"].items():
            self._parts.fill(self._inner, weights[int(number)], kept)
        self.zero_grad()
        self._show_state()

    def _show_state(self) -> None:
        """Let ``state`` hold this process's shares of the moments, as far as there are any."""
        for weight in self._weights():
            kept = self._parts.kept(self._inner, weight)
            if kept:
                self.state[weight] = kept

    def _gradients(self) -> list[Tensor]:
        """Return this process's parts of the gradients, 1-D each."""
        if not self._finished:
            self._zero.finalize_gradient_accumulation_boundary()
            self._finished = True
        return [part for w in self._weights() if (part := self._parts.gradient(w)) is not None]

    def _weights(self) -> Iterator[nn.Parameter]:
        return (weight for group in self.param_groups for weight in group["params"])

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.param_groups[0]["params"][0].device
        return device


class _Weights(nn.Module):
    """Weights by themselves, for DeepSpeed: it looks for them in a module, whose pass they are in.

    The passes of the models that they belong to are none of its business: gradients are caught at
    the weights.
    """

    def __init__(self, weights: list[nn.Parameter]) -> None:
        super().__init__()
        for number, weight in enumerate(weights):
            self.register_parameter(f"weight_{number}", weight)

    def forward(self, loss: Tensor) -> Tensor:
        return loss


class _Parts:
    """Where in DeepSpeed's long tensors this process's part of each weight's numbers is."""

    def __init__(self, zero: Any) -> None:
        self._zero = zero

    def shape(self, weight: Any) -> tuple[int, ...]:
        """Return the shape of the whole weight."""
        return tuple(weight.shape)

    def count(self, weight: Any) -> int:
        """Return how many of a weight's numbers are this process's."""
        raise NotImplementedError

    def start(self, weight: Any) -> int:
        """Return the first of them, in row-major order."""
        raise NotImplementedError

    def gradient(self, weight: Any) -> Tensor | None:
        """Return this process's part of a weight's gradient, 1-D."""
        raise NotImplementedError

    def place(self, weight: Any) -> tuple[Tensor, int]:
        """Return the long tensor that holds this process's numbers, and from where on."""
        raise NotImplementedError

    def drop_gradients(self) -> None:
        """Forget the gradients so far."""
        self._zero.zero_grad(set_to_none=True)

    def kept(self, inner: Optimizer, weight: Any) -> dict[str, Any]:
        """Return what an optimiser has kept for a weight: a `Share` of this process each."""
        long, place = self.place(weight)
        count, start, shape = self.count(weight), self.start(weight), self.shape(weight)
        return {
            name: Share(value[place : place + count], start, shape)
            if value.shape == long.shape and value.dim()
            else value
            for name, value in inner.state.get(long, {}).items()
        }

    def fill(self, inner: Optimizer, weight: Any, kept: Mapping[str, Any]) -> None:
        """Put what was kept for a weight where the optimiser keeps it."""
        long, place = self.place(weight)
        count, start = self.count(weight), self.start(weight)
        state = inner.state[long]
        for name, value in kept.items():
            if tuple(value.shape) != self.shape(weight):
                state[name] = value.clone()  # the number of steps
                continue
            if name not in state:
                state[name] = torch.zeros_like(long)
            state[name][place : place + count].copy_(numbers_of(value, start, start + count))


class _PartsOfGroups(_Parts):
    """Stage 2: all weights of a group in one row are cut into as many parts as processes."""

    def count(self, weight: Any) -> int:
        part = weight._hp_mapping
        return 0 if part is None else int(part.lp_fragment_address.numel)

    def start(self, weight: Any) -> int:
        part = weight._hp_mapping
        return 0 if part is None else int(part.lp_fragment_address.start)

    def gradient(self, weight: Any) -> Tensor | None:
        part = weight._hp_mapping
        if part is None:
            return None
        gradient: Tensor = part.get_lp_grad_fragment(weight._index_in_param_group)
        return gradient.view(-1)

    def place(self, weight: Any) -> tuple[Tensor, int]:
        part = weight._hp_mapping
        groups = self._zero.bit16_groups
        of = next(n for n, group in enumerate(groups) if id(weight) in map(id, group))
        long = self._zero.single_partition_of_fp32_groups[of]
        return long, 0 if part is None else int(part.hp_fragment_address.start)

    def drop_gradients(self) -> None:
        super().drop_gradients()
        for kept in (self._zero.averaged_gradients, self._zero.all_grad_tensors):
            for group in kept:
                kept[group] = None


class _PartsOfWeights(_Parts):
    """Stage 3: each weight is cut into as many parts as processes."""

    def shape(self, weight: Any) -> tuple[int, ...]:
        return tuple(weight.ds_shape)

    def count(self, weight: Any) -> int:
        return len(part_of(weight)[0])

    def start(self, weight: Any) -> int:
        return int(part_of(weight)[1])

    def gradient(self, weight: Any) -> Tensor | None:
        gradient: Tensor = self._zero.get_local_fp32_grad_for_param(weight)
        return gradient[: self.count(weight)]

    def place(self, weight: Any) -> tuple[Tensor, int]:
        group, place, _ = self._zero.grad_position[self._zero.get_param_id(weight)]
        return self._zero.fp32_partitioned_groups_flat[group], int(place)
