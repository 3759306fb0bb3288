"""What supervised fine-tuning, reward models and DPO share: training a model on a dataset.

A stage makes tokens, a model and a trainer; `fit` trains, with the harness at its milestones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbline.training.milestones import milestones

if TYPE_CHECKING:
    from plumbline.runs.stage import Stage
    from plumbline.training.exact_resume import ExactResume

Evaluate = Callable[[int], Mapping[str, float]]
"""Judges the model at a step; what it returns is logged."""


@dataclass(frozen=True)
class Fitted:
    """What a training came to."""

    steps: int
    """Optimiser steps."""
    last: Mapping[str, Any]
    """The last line of training metrics; empty where the training was too short for one."""
    metrics: Mapping[str, float]
    """Headline figures of every training: tokens seen, parameters, and those that train."""


def fit(
    trainer: ExactResume,
    stage: Stage,
    description: str,
    evaluations: int,
    evaluate: Evaluate | None,
) -> Fitted:
    """Train to the end, from the last checkpoint if there is one.

    ``evaluate`` is called before the first step and ``evaluations`` times on the way, the last
    time after the last step.
    """
    steps = trainer.planned_steps()
    evaluated_steps = milestones(steps, evaluations) if evaluate is not None else frozenset()

    def on_step(step: int) -> Mapping[str, float] | None:
        return evaluate(step) if evaluate is not None and step in evaluated_steps else None

    trainer.run(stage, description, on_step)
    last = trainer.state.global_step
    if evaluate is not None and last < steps:  # it stopped early
        stage.metrics.log(last, evaluate(last))
    steps = last
    lines = [line for line in trainer.state.log_history if "loss" in line]
    return Fitted(
        steps=steps,
        last=lines[-1] if lines else {},
        metrics={"tokens_seen": float(trainer.tokens_seen), **trainer.parameter_counts},
    )
