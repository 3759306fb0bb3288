"""A text classifier as a scorer: the probability of one of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from plumbline.data.records import Message
from plumbline.errors import ModelError
from plumbline.quiet import silence_libraries
from plumbline.runs.artifacts import Artifact


class ClassifierScorer:
    """The probability that a response has a label, by a text classifier that reads it alone.

    Labels that exclude each other go through a softmax; others (``problem_type``
    ``multi_label_classification``, or a single label) through a sigmoid.
    """

    name = "classifier"

    def __init__(
        self, model: Artifact | Path, label: str, batch_size: int = 32, max_length: int = 512
    ) -> None:
        self._folder = model.path if isinstance(model, Artifact) else model
        self._label, self._batch_size, self._max_length = label, batch_size, max_length

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int]:
        """The model, its tokenizer, and the number of the label."""
        from plumbline.lm.load import load_classifier

        silence_libraries()
        model, tokenizer = load_classifier(self._folder)
        names = [str(model.config.id2label[n]) for n in range(len(model.config.id2label))]
        if self._label not in names:
            raise ModelError(
                f"{self._folder} has no label {self._label!r}; its labels are {', '.join(names)}."
            )
        return model, tokenizer, names.index(self._label)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the probability of the label per response, 0 to 1."""
        import torch

        model, tokenizer, label = self._loaded
        config = model.config
        exclusive = config.num_labels > 1 and config.problem_type != "multi_label_classification"
        order = sorted(range(len(responses)), key=lambda row: len(responses[row]))
        scores = [0.0] * len(responses)
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            encoded: Any = tokenizer(
                [responses[row] for row in rows],
                padding=True, truncation=True, max_length=self._max_length, return_tensors="pt",
            )  # fmt: skip
            with torch.no_grad():
                logits = model(**encoded.to(model.device)).logits.float()
            shares = logits.softmax(-1) if exclusive else logits.sigmoid()
            for row, share in zip(rows, shares[:, label].tolist(), strict=True):
                scores[row] = share
        return scores
