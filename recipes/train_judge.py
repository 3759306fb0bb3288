"""Train a generative judge: a language model that says which of two responses is better.

    plumbline run train_judge --model MODEL --data FILE

Every preference is a judgment in both orders, and the judge learns them by supervised fine-tuning
(as in Zheng et al., 2023, "Judging LLM-as-a-Judge", appendix F). On disk it is an ordinary language
model.
"""

from __future__ import annotations

from typing import Any

from plumbline.lm.tuning import TuningConfig
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from preference.pairs_config import PreferenceFileConfig
from recipes._data import find_preferences
from recipes._models import find_model
from recipes._single import TrainConfig
from reward.judge.judgments import judgments
from reward.judge.local import LocalJudge, measure_judge
from sft.build import build_demonstrations
from sft.config import DemonstrationsConfig, SFTConfig
from sft.sources import from_rows
from sft.train import train_sft


class TrainJudgeConfig(TrainConfig):
    """Everything that may vary in this recipe."""

    preferences: PreferenceFileConfig = PreferenceFileConfig()
    """How preferences are read and split."""
    judgments: DemonstrationsConfig = DemonstrationsConfig()
    """How judgments are split, for the loss on held-out ones."""
    sft: SFTConfig = SFTConfig(
        tuning=TuningConfig(method="lora"),
        max_length=1024,
        training=TrainingConfig(learning_rate=2e-4, epochs=1, batch_size=8),
    )
    """How the judge is trained."""


CONFIG = TrainJudgeConfig
ESSENTIAL = (
    "model", "data", "eval_data", "seed", "preferences.columns", "sft.tuning.method",
    "sft.tuning.rank", "sft.max_length", "sft.training.learning_rate", "sft.training.epochs",
    "sft.training.batch_size",
)  # fmt: skip


def main(run: Run, config: TrainJudgeConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Preferences, each as two judgments.
    preferences = find_preferences(
        run, config.data, config.eval_data, config.preferences, config.data_seed
    )
    rows = defer(judgments, preferences=preferences)
    demonstrated = run.make(
        "judgments",
        build_demonstrations,
        config=config.judgments,
        source=defer(from_rows, rows=rows, origin=f"judgments of {preferences.id}"),
        data_seed=config.data_seed,
    )

    # 2. The judge, and how it judges held-out pairs in both orders.
    judge = run.make(
        "judge",
        train_sft,
        config=config.sft,
        base=find_model(run, config.model, "model"),
        demonstrations=demonstrated,
        seed=config.seed,
    )
    accuracy = run.make(
        "accuracy", measure_judge, judge=defer(LocalJudge, model=judge), preferences=preferences
    )
    return dict(accuracy.metrics)
