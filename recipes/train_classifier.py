"""Train a text classifier, from your model on texts with labels.

    plumbline train classifier --model MODEL --data FILE
    plumbline train classifier --model MODEL --data FILE --set texts.label_column=category

What it makes is a sequence classifier of transformers: its folder serves as the moderation measure,
and as a scorer.
"""

from __future__ import annotations

from typing import Any

from plumbline.data.sources import source_at
from plumbline.runs.find import find_artifact
from plumbline.runs.run import Run
from recipes._models import find_model
from recipes._single import SingleConfig
from sft.classification.config import ClassifierConfig, LabeledTextsConfig
from sft.classification.texts import build_labeled_texts
from sft.classification.train import train_classifier


class TrainClassifierConfig(SingleConfig):
    """Everything that may vary in this recipe."""

    texts: LabeledTextsConfig = LabeledTextsConfig()
    """How texts are read and split."""
    classifier: ClassifierConfig = ClassifierConfig()
    """The classifier."""


CONFIG = TrainClassifierConfig
ESSENTIAL = (
    "model", "data", "seed", "texts.text_column", "texts.label_column", "texts.held_out_share",
    "classifier.tuning.method", "classifier.tuning.rank", "classifier.max_length",
    "classifier.training.learning_rate", "classifier.training.epochs",
    "classifier.training.batch_size",
)  # fmt: skip
#: Short names of settings, for the command line and for Python.
SHORT = {
    "lr": "classifier.training.learning_rate",
    "epochs": "classifier.training.epochs",
    "batch_size": "classifier.training.batch_size",
    "max_length": "classifier.max_length",
    "tuning": "classifier.tuning.method",
    "lora_rank": "classifier.tuning.rank",
    "lora_alpha": "classifier.tuning.alpha",
    "report_to": "classifier.training.report_to",
}


def main(run: Run, config: TrainClassifierConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Texts with labels, and the model to start from.
    texts = find_artifact(run.home, config.data) or run.make(
        "texts",
        build_labeled_texts,
        config=config.texts,
        source=source_at(config.data),
        data_seed=config.data_seed,
    )
    base = find_model(run, config.model, "model")

    # 2. Train; F1 on held-out texts says how well.
    classifier = run.make(
        "classifier",
        train_classifier,
        config=config.classifier,
        base=base,
        texts=texts,
        seed=config.seed,
    )
    return dict(classifier.metrics)
