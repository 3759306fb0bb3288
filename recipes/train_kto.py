"""Train a policy on single responses that were liked or not, from your model, by KTO.

    plumbline train kto --model MODEL --data THUMBS
    plumbline train kto --model MODEL --data THUMBS --loss bco --reward REWARD_MODEL

KTO is that of Ethayarajh et al. (2024). Your model is the reference, too. The data are a file of
labelled responses, or preferences of a run, of which each side is one. The trained policy is
evaluated against your model on held-out prompts; with a reward model, by its scores.
"""

from __future__ import annotations

from typing import Any

from evaluation.config import EvaluationConfig
from evaluation.measures.registry import MeasuresConfig
from evaluation.tasks.sources import dataset_task
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from preference.config import KTOConfig
from preference.kto import train_kto
from preference.pairs_config import LabelFileConfig
from recipes._data import find_labels
from recipes._models import find_model
from recipes._single import (
    EVALUATION,
    SingleConfig,
    evaluate_trained,
    judge_of,
    reward_scorers,
)


class TrainKTOConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    reward: str | None = None
    """A reward model that scores responses in evaluations; named as the model is."""
    labels: LabelFileConfig = LabelFileConfig()
    """How a file of labels is read and split."""
    kto: KTOConfig = KTOConfig(
        max_length=1024, training=TrainingConfig(learning_rate=5e-5, epochs=1, batch_size=16)
    )
    """KTO and its relatives."""
    evaluation: EvaluationConfig = EVALUATION
    """How the policy is evaluated."""
    measures: MeasuresConfig = MeasuresConfig()
    """What is measured of its responses."""


CONFIG = TrainKTOConfig
ESSENTIAL = (
    "model", "data", "reward", "seed", "labels.columns", "kto.beta", "kto.loss",
    "kto.desirable_weight", "kto.undesirable_weight", "kto.tuning.method",
    "kto.tuning.rank", "kto.max_length", "kto.training.learning_rate", "kto.training.epochs",
    "kto.training.batch_size",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "kto.training.learning_rate",
    "epochs": "kto.training.epochs",
    "batch_size": "kto.training.batch_size",
    "max_length": "kto.max_length",
    "tuning": "kto.tuning.method",
    "lora_rank": "kto.tuning.rank",
    "lora_alpha": "kto.tuning.alpha",
    "report_to": "kto.training.report_to",
    "columns": "labels.columns",
    "beta": "kto.beta",
    "loss": "kto.loss",
}


def main(run: Run, config: TrainKTOConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Labels, and the model to start from.
    labels = find_labels(run, config.data, config.labels, config.data_seed)
    start = find_model(run, config.model, "model")

    # 2. One judge: the held-out prompts, and the reward model if there is one.
    judge = judge_of(
        run,
        start,
        defer(dataset_task, dataset=labels, split="test"),
        reward_scorers(run, config.reward),
        config.evaluation,
        config.measures,
        config.data_seed,
    )

    # 3. Train, and evaluate against the start.
    name = f"kto/seed-{config.seed}"
    policy = run.make(
        name,
        train_kto,
        config=config.kto,
        policy=start,
        labels=labels,
        hook=judge.hook,
        seed=config.seed,
    )
    return evaluate_trained(run, name, policy, start, judge)
