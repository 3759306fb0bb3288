"""What a training leaves on its way: checkpoints to resume from, evaluations, its policy.

Every random draw is derived from the seed and the round, so no generator's state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from plumbline.hooks import EvaluationHook
from plumbline.lm.save import model_card, save_model
from plumbline.lm.sharding import gathered
from plumbline.runs.artifacts import Artifact
from plumbline.runs.stage import Stage
from plumbline.training.milestones import milestones
from rl.config import PPOConfig
from rl.roles import Roles


class Stateful(Protocol):
    """A part of a training that changes from round to round."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a checkpoint must keep."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        ...


def save_checkpoint(stage: Stage, iteration: int, parts: Mapping[str, Stateful]) -> None:
    """Write the state of every part after a round."""
    tree = {name: part.state_dict() for name, part in parts.items()}
    stage.checkpoints.save(iteration, {"parts": tree, "metrics": stage.metrics.position()})


def restore_checkpoint(stage: Stage, parts: Mapping[str, Stateful]) -> None:
    """Restore every part from the last checkpoint, if there is one."""
    checkpoint = stage.checkpoints.load()
    if checkpoint is None:
        stage.metrics.rewind(0)
        return
    for name, part in parts.items():
        part.load_state_dict(checkpoint["parts"][name])
    stage.metrics.rewind(checkpoint["metrics"])


def save_policy(stage: Stage, place: str, roles: Roles, source: Artifact, iteration: int) -> None:
    """Save the policy as it is to a folder of the stage, by the process that writes."""
    card = model_card(
        "Policy aligned by proximal policy optimisation",
        f"After {iteration} rounds, from {source.id}.",
    )
    save_model(
        roles.model,
        roles.tokenizer,
        stage.folder / place,
        source=source.path,
        card=card,
        writes=stage.writes,
    )


class Evaluations:
    """Lets the hook judge the policy at evenly spaced rounds, and keeps the weights of each."""

    def __init__(
        self, stage: Stage, roles: Roles, hook: EvaluationHook, config: PPOConfig, source: Artifact
    ) -> None:
        self._stage, self._roles, self._hook, self._source = stage, roles, hook, source
        self._rounds = milestones(config.iterations, config.evaluations)
        self._keeps = config.keep_checkpoints

    def after(self, iteration: int) -> None:
        """Judge the policy after a round, where it is time to."""
        if iteration not in self._rounds:
            return
        stage, roles = self._stage, self._roles
        if self._keeps and iteration:
            save_policy(stage, f"checkpoints/step-{iteration}", roles, self._source, iteration)
        folder = stage.folder / "evaluations"
        with gathered(roles.model, roles.initial_reference.model):
            metrics = self._hook(roles.policy, roles.initial_reference, iteration, folder)
        stage.metrics.log(iteration, metrics)
