"""What may vary in training a text classifier."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from plumbline.config import Config
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.config import TrainingConfig


class LabeledTextsConfig(Config):
    """How texts with labels are read and split."""

    text_column: str = "text"
    """The column with the text."""
    label_column: str = "label"
    """The column with the label; of several labels a list."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the texts that training never sees."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""


class ClassifierConfig(Config):
    """How a text classifier is trained."""

    tuning: Annotated[TuningConfig, AfterValidator(for_use("reward"))] = TuningConfig(method="lora")
    """Which weights are trained, besides the new head, which always is. An adapter is merged at the
    end, so that transformers opens the classifier alone."""
    max_length: int = Field(512, ge=8)
    """Longest text, in tokens; longer ones are cut at their end, and counted."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=3, batch_size=16)
    """How it is trained."""
