"""Watching a held-out loss while a model trains: the best weights, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from plumbline.config import Config, only_when
from plumbline.lm.sharding import copy_of, put
from plumbline.runs.shares import Share


def _watches(config: HeldOutConfig) -> bool:
    return config.every is not None


class HeldOutConfig(Config):
    """What is done with the loss on held-out rows while the model trains."""

    every: int | None = Field(None, ge=1)
    """Optimiser steps between two held-out losses. Null: one at the end."""
    keep: Literal["final", "best"] = only_when(_watches, "every", "final")
    """Which weights become the model: those after the last step, or those of the least held-out
    loss. The others are kept beside it, in the folder best or final."""
    patience: int | None = only_when(_watches, "every", None, ge=1)
    """Stop when the loss has not fallen for so many held-out losses. Null: never."""
    least_fall: float = only_when(lambda config: config.patience is not None, "patience", 0.0, ge=0)
    """A loss has fallen if it is lower than the least so far by more than this, in nats."""

    @model_validator(mode="after")
    def _stops_with_the_best(self) -> HeldOutConfig:
        if self.patience is not None and self.keep == "final":
            raise ValueError(
                f"patience is {self.patience} and keep is final, so the model would be that of the "
                "loss which did not fall. Set keep: best"
            )
        return self


Kept = Mapping[str, torch.Tensor | Share]
"""Weights by name; of each what this process holds of it."""
Measure = Callable[[], Mapping[str, float]]
"""Returns ``held_out_loss`` and other figures of held-out rows."""


@dataclass
class HeldOutWatch:
    """The held-out losses of a training so far, and the weights of the least of them."""

    config: HeldOutConfig
    measure: Measure
    model: Any
    names: Sequence[str]
    """Names of the weights that the training may change."""
    allows: Callable[[Mapping[str, float]], bool] | None = None
    """Whether weights with such figures may become the model; None: all may."""
    is_allowed: bool = True
    """Whether the last figures were so."""
    allowed_step: int = 0
    """The last step after which they might, 0 for the start."""
    allowed_weights: Kept | None = None
    """The weights then; held only where some may not."""
    best: float = math.inf
    best_step: int = 0
    best_weights: Kept | None = None
    since_best: int = 0
    """Held-out losses since the least that fell by enough."""
    stopped: bool = False

    def is_due(self, step: int, last: bool) -> bool:
        """Return whether the held-out loss is wanted after a step; always after the last."""
        return self.config.every is not None and (last or step % self.config.every == 0)

    def look(self, step: int) -> Mapping[str, float]:
        """Measure; note the best weights, and whether to stop. Returns the figures."""
        metrics = self.measure()
        if self.allows is not None:
            self.is_allowed = self.allows(metrics)
            if not self.is_allowed:
                self.since_best += 1
                self._decide()
                return metrics
            self.allowed_step, self.allowed_weights = step, self._copy()
        loss = metrics["held_out_loss"]
        if loss < self.best - (self.config.least_fall if self.best < math.inf else 0.0):
            self.since_best = 0
        else:
            self.since_best += 1
        if loss < self.best:
            self.best, self.best_step = loss, step
            self.best_weights = self._copy()
        self._decide()
        return metrics

    def start(self) -> None:
        """Note the weights before the first step, which are always allowed."""
        if self.allows is not None:
            self.allowed_weights = self._copy()

    def use_allowed(self) -> None:
        """Give the model the last weights that are allowed."""
        self._use(self.allowed_weights or {})

    def use_best(self) -> None:
        """Give the model its best weights, or the last allowed ones where no others were."""
        self._use(self.best_weights or self.allowed_weights or {})

    @torch.no_grad()
    def _use(self, weights: Kept) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in weights.items():
            put(value, parameters[name])

    def _copy(self) -> Kept:
        parameters = dict(self.model.named_parameters())
        return {name: copy_of(parameters[name], "cpu") for name in self.names}

    def _decide(self) -> None:
        patience = self.config.patience
        self.stopped = patience is not None and self.since_best >= patience

    @contextmanager
    def best_weights_in_model(self) -> Iterator[None]:
        """Give the model its best weights while the block runs, and then its last ones again."""
        parameters = dict(self.model.named_parameters())
        last = {name: copy_of(parameters[name]) for name in self.names}
        self.use_best()
        try:
            yield
        finally:
            self._use(last)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "best_weights": self.best_weights or {},
            "since_best": self.since_best,
            "stopped": self.stopped,
            "is_allowed": self.is_allowed,
            "allowed_step": self.allowed_step,
            "allowed_weights": self.allowed_weights or {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.best = math.inf if state["best"] is None else state["best"]
        self.best_step, self.since_best = state["best_step"], state["since_best"]
        self.best_weights, self.stopped = state["best_weights"] or None, state["stopped"]
        self.is_allowed, self.allowed_step = state["is_allowed"], state["allowed_step"]
        self.allowed_weights = state["allowed_weights"] or None
