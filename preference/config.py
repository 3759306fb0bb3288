"""What may vary in sampling pairs and in direct preference optimisation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from plumbline.config import Config, only_when
from plumbline.data.reader import DataFormatConfig
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.training.config import TrainingConfig
from preference.losses import LOSSES


class PairsConfig(Config):
    """How pairs of responses are drawn from a policy, for people to compare."""

    prompts: int = Field(1000, ge=2)
    """Prompts to answer."""
    responses: int = Field(4, ge=2)
    """Responses sampled for each prompt."""
    pairs_per_prompt: int = Field(2, ge=1)
    """Pairs made of them, at most."""
    sampling: SamplingConfig = SamplingConfig()
    """How the responses are drawn."""

    @model_validator(mode="after")
    def _enough_responses(self) -> PairsConfig:
        most = self.responses * (self.responses - 1) // 2
        if self.pairs_per_prompt > most:
            raise ValueError(
                f"pairs_per_prompt is {self.pairs_per_prompt}, but {self.responses} responses make "
                f"only {most} pairs. Raise responses or lower pairs_per_prompt"
            )
        return self


class PreferenceFileConfig(DataFormatConfig):
    """How a file of human preferences is read and split."""

    max_characters: int = Field(4000, ge=1)
    """Longest prompt with its response, in characters; longer pairs are left out, and counted."""
    held_out_share: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts that training never sees."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""


class DPOConfig(Config):
    """Direct preference optimisation (Rafailov et al., 2023), by TRL's DPOTrainer."""

    beta: float = Field(0.1, gt=0)
    """Weight of the implied KL penalty: smaller lets the policy move further."""
    loss: Annotated[str, LOSSES] = "sigmoid"
    """The loss of a pair (preference/losses.py); sigmoid is DPO as published."""
    label_smoothing: float = only_when(
        lambda config: LOSSES[config.loss].uses_label_smoothing,
        f"loss: {LOSSES.where(lambda loss: loss.uses_label_smoothing)}",
        0.0,
        ge=0,
        lt=0.5,
    )
    """Assumed share of pairs whose label is wrong. With sigmoid this is conservative DPO."""
    tuning: TuningConfig = TuningConfig(method="lora")
    """Which weights are trained."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its response, in tokens; longer pairs are left out, and counted."""
    training: TrainingConfig = TrainingConfig(learning_rate=5e-4, epochs=1, batch_size=16)
    """How they are trained."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it."""
    keep_checkpoints: bool = only_when(
        lambda config: config.evaluations > 0, "evaluations above 0", True, in_identity=False
    )
    """Keep the policy's weights at each of these evaluations."""
