"""TRL's RewardTrainer with soft labels, and with checkpoints that resume exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import trl

from plumbline.training.exact_resume import ExactResume
from reward.soft_labels import PROBABILITY, bradley_terry_loss


class RewardTrainer(ExactResume, trl.RewardTrainer):  # type: ignore[misc]
    """TRL's trainer; rows may have the probability that the chosen response is the better.

    TRL's own loss keeps everything else that it does (the centring of rewards, its metrics); only
    its first term, the loss of a pair whose label is certain, is exchanged for ours. Rows without
    soft labels are trained on as ever.
    """

    data_collator: Any
    _signature_columns: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.data_collator = WithProbabilities(self.data_collator)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss with its pairwise term softened."""
        probability = inputs.pop(PROBABILITY, None)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if probability is not None:
            chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
            hard = bradley_terry_loss(chosen, rejected, 1.0)
            loss = loss + (bradley_terry_loss(chosen, rejected, probability) - hard).mean()
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if PROBABILITY not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, PROBABILITY]


class WithProbabilities:
    """A collator of preferences that also collates soft labels, where rows have them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a batch, with soft labels as a tensor [B]."""
        batch: dict[str, Any] = self._collate(examples)
        if PROBABILITY in examples[0]:
            batch[PROBABILITY] = torch.tensor(
                [example[PROBABILITY] for example in examples], dtype=torch.float
            )
        return batch
