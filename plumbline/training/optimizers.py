"""Optimisers beyond what `TrainingArguments` names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from plumbline.errors import ModelError
from plumbline.tables import Table


@dataclass(frozen=True)
class AdamWKind:
    """A row of the table of optimisers: a form in which AdamW holds its moments."""

    name: str
    transformers_name: str
    """As ``TrainingArguments`` call it."""
    bitsandbytes_name: str | None = None
    """Its class there; None for torch's own."""
    can_share: bool = False
    """Whether it was tried where processes share the weights."""

    def check(self) -> None:
        """Raise `ModelError` where it needs what is not installed."""
        if self.bitsandbytes_name and importlib.util.find_spec("bitsandbytes") is None:
            raise ModelError(
                f"The optimizer {self.name} needs bitsandbytes, which is not installed: "
                "pip install 'plumbline-rlhf[qlora]', or set optimizer: adamw."
            )

    def make(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        *,
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> Optimizer:
        """Return the optimiser; raise `ModelError` where it needs what is not installed."""
        options: Any = {"lr": learning_rate, "eps": epsilon, "weight_decay": weight_decay}
        if self.bitsandbytes_name is None:
            return AdamW(parameters, fused=True, **options)
        self.check()
        import bitsandbytes

        optimizer: Optimizer = getattr(bitsandbytes.optim, self.bitsandbytes_name)(
            list(parameters), **options
        )
        return optimizer


OPTIMIZERS = Table(
    "optimizer",
    (
        AdamWKind("adamw", "adamw_torch_fused", can_share=True),
        AdamWKind("adamw_8bit", "adamw_8bit", "AdamW8bit"),
        AdamWKind("paged_adamw", "paged_adamw_32bit", "PagedAdamW32bit"),
        AdamWKind("paged_adamw_8bit", "paged_adamw_8bit", "PagedAdamW8bit"),
    ),
)


def check_optimizer(name: str) -> None:
    """Raise `ModelError` where an optimizer needs what is not installed."""
    OPTIMIZERS[name].check()


"""Forms of AdamW. 8 bits take a quarter of the memory for its moments; paged ones move out to the
machine's memory where the GPU's is full."""


class Together(Optimizer):
    """Several optimisers, each with weights of its own, that step as one."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        # The very same groups, so that a scheduler of this optimiser sets the others' rates.
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Let each take its step. A closure is refused: each would call it again."""
        if closure is not None:
            raise ValueError("optimisers that step together take no closure")
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = self._groups()  # loading made new ones


def muon_with_adamw(
    model: nn.Module,
    *,
    muon_learning_rate: float,
    learning_rate: float,
    weight_decay: float,
    adam_beta2: float,
) -> Optimizer:
    """Return Muon for the matrices inside a model, and AdamW for all else.

    Muon (Jordan et al., 2024) makes each matrix's step orthogonal, which helps a small model that
    is trained for a few hundred steps. Embeddings, the head and vectors are no such matrices.
    """
    outer = {
        id(layer.weight)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
        if layer is not None
    }
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in model.parameters():
        inside = parameter.ndim == 2 and id(parameter) not in outer
        (matrices if inside else rest).append(parameter)
    return Together(
        [
            Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay),
            AdamW(rest, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, adam_beta2)),
        ]
    )
