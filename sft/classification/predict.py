"""The labels that a trained classifier gives to texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.errors import ModelError

_TOGETHER = 64


class TextClassifier:
    """A sequence classifier of transformers, such as `train_classifier` writes it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForSequenceClassification

        from plumbline.lm.context import length_limit
        from plumbline.lm.load import load_config
        from plumbline.lm.tokenizer import load_tokenizer

        config: Any = load_config(folder)
        names = getattr(config, "architectures", None) or []
        if not any(name.endswith("ForSequenceClassification") for name in names):
            raise ModelError(
                f"{folder} is not a classifier: its architecture is {', '.join(names) or 'unknown'}"
                ". Train one by `plumbline train classifier`."
            )
        self._model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
        self._tokenizer = load_tokenizer(folder)
        self._limit = length_limit(1 << 20, config).tokens
        self.several = config.problem_type == "multi_label_classification"
        """Whether several labels may hold at once."""
        self.labels = [config.id2label[n] for n in range(config.num_labels)]

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Return the probability of each label for each text; long texts are cut."""
        from sft.classification.train import probabilities

        ids = [{"input_ids": self._tokenizer(text)["input_ids"][: self._limit]} for text in texts]
        table = probabilities(
            self._model, ids, self._tokenizer, several=self.several, batch_size=_TOGETHER
        )
        return [dict(zip(self.labels, row, strict=True)) for row in table.tolist()]
