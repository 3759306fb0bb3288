"""Train a reward model, from your model on preferences.

    plumbline train reward --model MODEL --data FILE
    plumbline train reward --model MODEL --data FILE --columns chosen=better,rejected=worse

The loss is that of Ouyang et al. (2022), equation 1, with one pair for each row.
"""

from __future__ import annotations

from typing import Any

from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from preference.pairs_config import PreferenceFileConfig
from recipes._data import find_preferences
from recipes._models import find_model
from recipes._single import TrainConfig
from reward.config import RewardConfig
from reward.train import train_reward_model


class TrainRewardConfig(TrainConfig):
    """Everything that may vary in this recipe."""

    preferences: PreferenceFileConfig = PreferenceFileConfig()
    """How preferences are read and split."""
    reward: RewardConfig = RewardConfig(
        max_length=1024, training=TrainingConfig(learning_rate=1e-4, epochs=1, batch_size=8)
    )
    """The reward model."""


CONFIG = TrainRewardConfig
ESSENTIAL = (
    "model", "data", "eval_data", "seed", "preferences.columns", "preferences.held_out_share",
    "reward.tuning.method", "reward.tuning.rank", "reward.max_length", "reward.center_rewards",
    "reward.training.learning_rate", "reward.training.epochs", "reward.training.batch_size",
    "reward.training.gradient_accumulation", "reward.training.report_to",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "reward.training.learning_rate",
    "epochs": "reward.training.epochs",
    "batch_size": "reward.training.batch_size",
    "max_length": "reward.max_length",
    "tuning": "reward.tuning.method",
    "lora_rank": "reward.tuning.rank",
    "lora_alpha": "reward.tuning.alpha",
    "report_to": "reward.training.report_to",
    "columns": "preferences.columns",
}


def main(run: Run, config: TrainRewardConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Preferences, and the model to start from.
    preferences = find_preferences(
        run, config.data, config.eval_data, config.preferences, config.data_seed
    )
    policy = find_model(run, config.model, "model")

    # 2. Train; the accuracy on held-out pairs says how well.
    reward_model = run.make(
        "reward",
        train_reward_model,
        config=config.reward,
        policy=policy,
        preferences=preferences,
        seed=config.seed,
    )
    return dict(reward_model.metrics)
