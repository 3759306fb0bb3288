"""What may vary in process rewards: labels of steps from roll-outs, and the training."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from plumbline.config import Config
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.config import TrainingConfig
from reward.process.steps import STEP_SPLITS


class RolloutLabelsConfig(Config):
    """How steps get labels from checkable results, without people (Math-Shepherd).

    A step is as good as the share of continuations behind it that come to a right result.
    """

    responses: int = Field(4, ge=1)
    """Responses sampled for each prompt, whose steps are labelled."""
    rollouts: int = Field(8, ge=1)
    """Continuations sampled behind each step. The last step has none: its result is there."""
    split: Annotated[str, STEP_SPLITS] = "sentences"
    """How a response is cut into steps."""
    right_above: float = 0.5
    """A response is right if the checker's score is higher than this."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses and continuations are drawn."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that training never sees."""


class StepFileConfig(Config):
    """How a file of labelled steps is read and split."""

    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the prompts that training never sees."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""


class ProcessConfig(Config):
    """How a process reward model is trained: cross-entropy at the end of each labelled step."""

    tuning: Annotated[TuningConfig, AfterValidator(for_use("reward"))] = TuningConfig(method="lora")
    """Which weights are trained, besides the new head, which always is."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its steps, in tokens; longer rows are left out, and counted."""
    hard_labels: bool | None = None
    """A step counts as right where its label is above 0, and as wrong at 0: with roll-outs, one
    right continuation is enough (Math-Shepherd's hard estimation). Product and minimum then ask
    whether any step is a mistake. false: labels are probabilities. Null: true for labels from
    roll-outs."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    """How it is trained."""
