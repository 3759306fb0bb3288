"""What may vary in judging policies."""

from __future__ import annotations

from pydantic import Field, model_validator

from plumbline.config import Config
from plumbline.lm.generation import SamplingConfig


class EvaluationConfig(Config):
    """How policies are judged: the same for every policy that is compared."""

    prompts: int = Field(300, ge=2)
    """Held-out prompts that every finished policy answers."""
    prompts_during_training: int = Field(100, ge=2)
    """How many of them a policy answers at each look during training."""
    sampling: SamplingConfig = SamplingConfig()
    """How answers are drawn; every policy draws from the same random streams."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    resamples: int = Field(5000, ge=100)
    """Bootstrap resamples of the prompts behind each interval."""

    @model_validator(mode="after")
    def _fewer_during_training(self) -> EvaluationConfig:
        if self.prompts_during_training > self.prompts:
            raise ValueError(
                f"prompts_during_training ({self.prompts_during_training}) are the first of "
                f"prompts ({self.prompts}), so they cannot be more"
            )
        return self
