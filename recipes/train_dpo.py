"""Train a policy by direct preference optimisation, from your model on preferences.

    plumbline train dpo --model MODEL --data FILE
    plumbline train dpo --model MODEL --data FILE --beta 0.05 --reward REWARD_MODEL

Direct preference optimisation is that of Rafailov et al. (2023). Your model is the reference,
unless you name another. The trained policy is evaluated against your model on held-out prompts;
with a reward model, by its scores.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from evaluation.config import EvaluationConfig
from evaluation.measures.registry import MeasuresConfig
from evaluation.tasks.sources import dataset_task
from plumbline.config import only_when
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from preference.config import DPOConfig
from preference.dpo import train_dpo
from preference.pairs_config import PreferenceFileConfig
from recipes._data import find_preferences
from recipes._models import find_model
from recipes._single import (
    EVALUATION,
    TrainConfig,
    evaluate_trained,
    judge_of,
    other_reference,
    reward_scorers,
)


class TrainDPOConfig(TrainConfig):
    """Everything that may vary in this recipe."""

    reference: str | None = None
    """The reference, named as the model is; it must have the same vocabulary. Null: the model that
    training starts from."""
    reward: str | None = None
    """A reward model that scores responses in evaluations; named as the model is."""
    reward_label: str | None = only_when(lambda config: config.reward is not None, "reward", None)
    """Where the reward model is a classifier with two labels: the good one, whose log-odds are the
    reward. Null: the second."""
    preferences: PreferenceFileConfig = PreferenceFileConfig()
    """How preferences are read and split."""
    dpo: DPOConfig = DPOConfig(
        max_length=1024, training=TrainingConfig(learning_rate=5e-5, epochs=1, batch_size=8)
    )
    """Direct preference optimisation."""
    evaluation: EvaluationConfig = EVALUATION
    """How the policy is evaluated."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured of its responses."""

    @model_validator(mode="after")
    def _reference_has_an_effect(self) -> TrainDPOConfig:
        problem = None if self.reference is None else self.dpo.problem_with_reference()
        if problem is not None:
            raise ValueError(problem)
        return self


CONFIG = TrainDPOConfig
ESSENTIAL = (
    "model", "data", "eval_data", "reward", "seed", "preferences.columns", "dpo.beta", "dpo.loss",
    "dpo.tuning.method", "dpo.tuning.rank", "dpo.max_length", "dpo.training.learning_rate",
    "dpo.training.epochs", "dpo.training.batch_size", "dpo.training.report_to",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "dpo.training.learning_rate",
    "epochs": "dpo.training.epochs",
    "batch_size": "dpo.training.batch_size",
    "max_length": "dpo.max_length",
    "tuning": "dpo.tuning.method",
    "lora_rank": "dpo.tuning.rank",
    "lora_alpha": "dpo.tuning.alpha",
    "report_to": "dpo.training.report_to",
    "columns": "preferences.columns",
    "beta": "dpo.beta",
    "loss": "dpo.loss",
}


def main(run: Run, config: TrainDPOConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Preferences, and the model to start from.
    preferences = find_preferences(
        run, config.data, config.eval_data, config.preferences, config.data_seed
    )
    start = find_model(run, config.model, "model")
    reference = other_reference(run, config.reference, start)

    # 2. One judge: the held-out prompts, and the reward model if there is one.
    judge = judge_of(
        run,
        start,
        defer(dataset_task, dataset=preferences, split="test"),
        reward_scorers(run, config.reward, config.reward_label),
        config.evaluation,
        config.measures,
        config.data_seed,
        reference,
    )

    # 3. Train, and evaluate against the start.
    name = f"dpo/seed-{config.seed}"
    policy = run.make(
        name,
        train_dpo,
        config=config.dpo,
        policy=start,
        preferences=preferences,
        hook=judge.hook,
        seed=config.seed,
        reference=reference,
    )
    return evaluate_trained(run, name, policy, reference or start, judge)
