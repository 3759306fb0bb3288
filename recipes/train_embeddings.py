"""Train an embedding model, from your model on pairs of texts that belong together.

    plumbline train embeddings --model MODEL --data FILE
    plumbline train embeddings --model MODEL --data FILE --set pairs.query_column=question

The loss is that of Karpukhin et al. (2020): each query should find its own text among those of the
batch. What it makes has the layout of sentence-transformers, and measures how alike pairs are where
pairs to label are chosen.
"""

from __future__ import annotations

from typing import Any

from plumbline.data.sources import source_at
from plumbline.runs.find import find_artifact
from plumbline.runs.run import Run
from recipes._models import find_model
from recipes._single import SingleConfig
from sft.embeddings.config import EmbeddingConfig, TextPairsConfig
from sft.embeddings.pairs import build_text_pairs
from sft.embeddings.train import train_embeddings


class TrainEmbeddingsConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    pairs: TextPairsConfig = TextPairsConfig()
    """How pairs are read and split."""
    embeddings: EmbeddingConfig = EmbeddingConfig()
    """The embedding model."""


CONFIG = TrainEmbeddingsConfig
ESSENTIAL = (
    "model", "data", "seed", "pairs.query_column", "pairs.positive_column",
    "pairs.held_out_share", "embeddings.tuning.method", "embeddings.pooling",
    "embeddings.temperature", "embeddings.mined_negatives", "embeddings.max_length",
    "embeddings.training.learning_rate", "embeddings.training.epochs",
    "embeddings.training.batch_size",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "embeddings.training.learning_rate",
    "epochs": "embeddings.training.epochs",
    "batch_size": "embeddings.training.batch_size",
    "max_length": "embeddings.max_length",
    "tuning": "embeddings.tuning.method",
    "lora_rank": "embeddings.tuning.rank",
    "lora_alpha": "embeddings.tuning.alpha",
    "report_to": "embeddings.training.report_to",
}


def main(run: Run, config: TrainEmbeddingsConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Pairs of texts, and the model to start from.
    pairs = find_artifact(run.home, config.data) or run.make(
        "pairs",
        build_text_pairs,
        config=config.pairs,
        source=source_at(config.data),
        data_seed=config.data_seed,
    )
    base = find_model(run, config.model, "model")

    # 2. Train; recall on held-out queries says how well, beside that of the start.
    model = run.make(
        "embeddings",
        train_embeddings,
        config=config.embeddings,
        base=base,
        pairs=pairs,
        seed=config.seed,
    )
    return dict(model.metrics)
