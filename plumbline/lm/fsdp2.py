"""Weights of which each process holds some rows, by torch's own `fully_shard` (FSDP2).

A group for each decoder layer and one for the rest. A layer's weights are gathered for its pass and
given up after it. So every pass begins with a call of the whole model, or inside `run`.

accelerate could do this, too, but not without a GPU. So what is tested would not be what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from plumbline.errors import ModelError
from plumbline.lm.backbone import backbone
from plumbline.runs.processes import mesh

T = TypeVar("T")

_PASS = "run_in_shares"


class FSDP2:
    """How a model's weights are shared out, and gathered."""

    casts = True
    """Whether passes compute in bfloat16 by themselves."""

    def split(self, model: Any, *, bfloat16: bool) -> None:
        """Keep this process's share of a model's weights, on its device. Nothing is sent."""
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        layers = getattr(backbone(model), "layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise ModelError(
                f"{type(model).__name__} has no list of decoder layers, by which its weights could "
                "be shared out. Train it with --launch ddp."
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

    def connect(self, model: Any, *, sums: bool) -> None:
        """Make a model that was split ready for passes; all processes do so together."""
        from torch.distributed.fsdp import register_fsdp_forward_method

        setattr(model, _PASS, lambda function: function())
        register_fsdp_forward_method(model, _PASS)
        self.run(model, lambda: None)  # now the model is known to be the root of its layers
        for part in _parts(model):
            # A gathered weight keeps for good whether it trains. PEFT switches that with the
            # adapter.
            part.unshard()
            part.reshard()
            if sums:
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(True)  # which gloo knows, too

    def connect_head(self, head: nn.Module) -> None:
        """Leave a head beside the models whole in each process."""

    def run(self, model: Any, function: Callable[[], T]) -> T:
        """Return what a function returns that makes one pass through parts of a model.

        The weights outside the layers are gathered meanwhile.
        """
        result: T = getattr(model, _PASS)(function)
        return result

    @contextmanager
    def gathered(self, model: Any) -> Iterator[None]:
        """Let each process hold all weights of a model while the block runs, for reading alone."""
        parts = _parts(model)
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(True, recurse=False)


def _parts(model: Any) -> list[Any]:
    """Return the modules by which weights are gathered, the model itself first."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
