"""What may vary in training an embedding model."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from plumbline.config import Config
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.config import TrainingConfig
from sft.embeddings.pooling import POOLINGS


class TextPairsConfig(Config):
    """How pairs of texts that belong together are read and split."""

    query_column: str = "query"
    """The column with the text that is searched by, such as a question."""
    positive_column: str = "positive"
    """The column with a text that it should find."""
    held_out_share: float = Field(0.1, gt=0, lt=1)
    """Share of the queries that training never sees."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""


class EmbeddingConfig(Config):
    """How an embedding model is trained."""

    tuning: Annotated[TuningConfig, AfterValidator(for_use("reward"))] = TuningConfig(method="full")
    """Which weights are trained. An adapter is merged at the end."""
    pooling: Annotated[str, POOLINGS] = "mean"
    """What of a text's states becomes its vector: their mean, or the last one."""
    temperature: float = Field(0.05, gt=0)
    """Divides the cosines in the loss."""
    mined_negatives: int = Field(0, ge=0)
    """Texts of other queries that the start finds most alike, as further negatives of each query;
    those of the batch always are. 0: none are mined."""
    mined_from: int = Field(2, ge=0)
    """So many of the most alike are passed over: they may be right answers, too."""
    max_length: int = Field(256, ge=4)
    """Longest text, in tokens; longer ones are cut at their end."""
    training: TrainingConfig = TrainingConfig(learning_rate=5e-4, epochs=5, batch_size=32)
    """How it is trained."""
