"""What may vary in training a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from plumbline.config import Config
from plumbline.lm.tuning import TuningConfig
from plumbline.training.config import TrainingConfig


class RewardConfig(Config):
    """How the reward model is trained: pairwise logistic loss on preferences."""

    renamed: ClassVar[Mapping[str, str]] = {
        "center": "center_rewards",
        "centre": "center_rewards",
    }

    tuning: TuningConfig = TuningConfig(method="lora")
    """Which weights are trained, besides the new head, which always is."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its response, in tokens; longer pairs are left out, and counted."""
    center_rewards: float = Field(0.01, ge=0)
    """Weight of the penalty on (r_chosen + r_rejected)^2, which keeps rewards near 0."""
    soft_labels: str | None = None
    """Column of the preferences with the probability that the chosen response is the better, such
    as soft_label or vote_share, for cross-entropy with soft labels. Null: chosen is chosen."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    """How it is trained."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the reward model during training, besides once before it.
    Counts only where a harness is given."""
