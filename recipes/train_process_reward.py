"""Train a process reward model, from your model on steps that are labelled right or wrong.

    plumbline train process-reward --model MODEL --data prm800k.jsonl
    plumbline steps --model MODEL --data questions.jsonl --compare numeric --name labelled
    plumbline train process-reward --model MODEL --data labelled:steps

The data are a file in PRM800K's format or in TRL's stepwise one (docs/formats.md), or steps that
`plumbline steps` labelled. What it makes is a token classifier; as a reward it scores a response by
the product of its steps' probabilities, or as a term of kind process says (docs/reward-scoring.md).
"""

from __future__ import annotations

from typing import Annotated, Any

from plumbline.data.sources import source_at
from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import Artifact
from plumbline.runs.find import find_artifact
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from recipes._models import find_model
from recipes._single import SingleConfig
from reward.process.config import ProcessConfig, StepFileConfig
from reward.process.data import import_steps, split_of
from reward.process.steps import STEP_SPLITS
from reward.process.train import train_process_reward


class TrainProcessRewardConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    steps: StepFileConfig = StepFileConfig()
    """How a file of labelled steps is read and split."""
    split: Annotated[str | None, STEP_SPLITS] = None
    """How responses are cut when they are scored. Null: as the labelled ones were, a file's by
    lines."""
    process: ProcessConfig = ProcessConfig(
        max_length=1024, training=TrainingConfig(learning_rate=1e-4, epochs=1, batch_size=8)
    )
    """The process reward model."""


CONFIG = TrainProcessRewardConfig
ESSENTIAL = (
    "model", "data", "seed", "steps.held_out_share", "split", "process.tuning.method",
    "process.tuning.rank", "process.max_length", "process.training.learning_rate",
    "process.training.epochs", "process.training.batch_size",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "process.training.learning_rate",
    "epochs": "process.training.epochs",
    "batch_size": "process.training.batch_size",
    "max_length": "process.max_length",
    "tuning": "process.tuning.method",
    "lora_rank": "process.tuning.rank",
    "lora_alpha": "process.tuning.alpha",
    "report_to": "process.training.report_to",
}


def main(run: Run, config: TrainProcessRewardConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Labelled steps, and the model to start from.
    steps = _find_steps(run, config)
    policy = find_model(run, config.model, "model")

    # 2. Train; the accuracy on held-out steps stands beside that of the most frequent label.
    process_reward = run.make(
        "process_reward",
        train_process_reward,
        config=config.process,
        policy=policy,
        steps=steps,
        split=config.split or split_of(steps),
        seed=config.seed,
    )
    return dict(process_reward.metrics)


def _find_steps(run: Run, config: TrainProcessRewardConfig) -> Artifact:
    """Return labelled steps: an artefact by its name, or one made from a file."""
    artifact = find_artifact(run.home, config.data)
    if artifact is None:
        return run.make(
            "steps",
            import_steps,
            config=config.steps,
            file=source_at(config.data),
            data_seed=config.data_seed,
        )
    if artifact.kind != "steps":
        raise ArtifactError(
            f"{config.data!r} is {artifact.id}, whose kind is {artifact.kind!r}. Give steps that "
            "plumbline steps labelled, or a file of labelled steps."
        )
    return artifact
