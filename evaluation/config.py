"""Settings of an evaluation."""

from __future__ import annotations

from pydantic import Field, model_validator

from plumbline.config import Config
from plumbline.lm.generation import SamplingConfig


class EvaluationConfig(Config):
    """How policies are evaluated: the same for every policy that is compared."""

    prompts: int = Field(300, ge=2)
    """Held-out prompts that every finished policy responds to."""
    prompts_during_training: int = Field(100, ge=2)
    """How many of them a policy responds to at each evaluation during training."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are sampled. All policies use the same random streams."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Confidence level of the intervals."""
    resamples: int = Field(5000, ge=100)
    """Bootstrap resamples of the prompts for each interval."""

    @model_validator(mode="after")
    def _fewer_during_training(self) -> EvaluationConfig:
        if self.prompts_during_training > self.prompts:
            raise ValueError(
                f"prompts_during_training ({self.prompts_during_training}) are the first of "
                f"prompts ({self.prompts}), so they cannot be more"
            )
        return self
