"""Some weights and their optimiser."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from plumbline.lm.sharding import copy_of, held
from plumbline.runs.shares import Share
from plumbline.training.optimizers import OPTIMIZERS
from plumbline.training.sharding import (
    assign,
    clip_gradients,
    load_moments,
    moments_of,
    sharded,
)
from rl.config import PPOConfig


class Learner:
    """The trainable weights of one role, with AdamW."""

    def __init__(
        self, parameters: dict[str, nn.Parameter], learning_rate: float, config: PPOConfig
    ) -> None:
        self.parameters = parameters
        self._learning_rate, self._config = learning_rate, config
        # A group for weights in shares and one for others: a fused step takes no mixture.
        shared = [p for p in parameters.values() if hasattr(p, "device_mesh")]
        whole = [p for p in parameters.values() if not hasattr(p, "device_mesh")]
        groups: list[Any] = (
            [{"params": part} for part in (shared, whole)] if shared and whole else []
        )
        optimizer = OPTIMIZERS[config.optimizer].make(
            groups or parameters.values(), learning_rate, epsilon=config.adam_epsilon
        )
        self.optimizer = sharded(optimizer, sums=True)

    def set_learning_rate(self, iteration: int) -> None:
        """Set the learning rate of a round."""
        left = 1 - iteration / self._config.iterations
        factor = left if self._config.schedule == "linear" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate * factor

    def clip_gradients(self) -> Tensor:
        """Clip the accumulated gradients to ``max_grad_norm``; return their norm before, []."""
        limit = self._config.max_grad_norm
        return clip_gradients(self.optimizer, self.parameters.values(), limit)

    def step(self) -> None:
        """Take one step along the accumulated gradients."""
        self.optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the accumulated gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        weights = {name: held(weight) for name, weight in self.parameters.items()}
        return {"weights": weights, "moments": moments_of(self.optimizer, self.parameters)}

    def copy_of_state(self) -> dict[str, Any]:
        """Return a copy of what `state_dict` returns, which stays as it is."""
        state = self.state_dict()
        return {
            "weights": {name: copy_of(weight) for name, weight in state["weights"].items()},
            "moments": {
                name: {
                    key: copy_of(value) if isinstance(value, Tensor | Share) else value
                    for key, value in kept.items()
                }
                for name, kept in state["moments"].items()
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        assign(self.parameters, state["weights"])
        load_moments(self.optimizer, self.parameters, state["moments"])
