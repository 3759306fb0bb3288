"""The loop of an embedding model's training: transformers', with exact resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from plumbline.training.exact_resume import ExactResume
from sft.embeddings.losses import contrastive_loss
from sft.embeddings.pooling import POOLINGS


class EmbeddingTrainer(ExactResume):
    """Trains on rows with ``query``, ``positive`` and perhaps ``negatives``."""

    def __init__(
        self, *, tokenizer: Any, pooling: str, temperature: float, limit: int, **arguments: Any
    ) -> None:
        self._tokenizer, self._pooling = tokenizer, pooling
        self._temperature, self._limit = temperature, limit
        super().__init__(data_collator=self._collate, **arguments)
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the batch
        self._total_train_tokens = 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean contrastive loss over the queries of a batch."""
        count = len(inputs["same"])
        vectors = self._vectors(model, inputs["ids"], inputs["mask"])
        self._total_train_tokens += int(inputs["mask"].sum())
        losses = contrastive_loss(
            vectors[:count], vectors[count:], inputs["same"], self._temperature
        )
        return (losses.mean(), vectors) if return_outputs else losses.mean()

    def _vectors(self, model: Any, ids: Tensor, mask: Tensor) -> Tensor:
        states = model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return POOLINGS[self._pooling].function(states, mask).float()

    def _collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return ids of queries, texts and negatives, and which texts are right for which query."""
        queries = [row["query"] for row in rows]
        texts = [row["positive"] for row in rows]
        texts += [negative for row in rows for negative in row.get("negatives", ())]
        batch = self._tokenizer(
            [*queries, *texts], padding=True, truncation=True, max_length=self._limit,
            padding_side="right", return_tensors="pt",
        )  # fmt: skip
        # A text that is a query's own in another row of the batch is right for it as well.
        own: dict[str, set[str]] = {}
        for row in rows:
            own.setdefault(row["query"], set()).add(row["positive"])
        same = [[text in own[query] for text in texts] for query in queries]
        return {
            "ids": batch["input_ids"],
            "mask": batch["attention_mask"],
            "same": torch.tensor(same),
        }
