"""TRL's SFTTrainer with checkpoints that resume exactly, and a held-out loss for any batch size."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import trl
from torch.utils.data import DataLoader

from plumbline.training.exact_resume import ExactResume


class HeldOut(NamedTuple):
    """How well a policy predicts demonstrations that it has not seen."""

    loss: float
    """Mean negative log-probability of a learnt token, in nats."""
    token_accuracy: float
    """Share of learnt tokens that the policy finds most likely."""


class SFTTrainer(ExactResume, trl.SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows with ``input_ids`` and ``labels``."""

    @torch.no_grad()
    def held_out(self) -> HeldOut:
        """Return means over all learnt tokens of the held-out rows.

        `evaluate` takes the mean of each batch and then the mean over rows, which weighs the
        tokens of short answers more, and by as much as the batches are small.
        """
        was_training = self.model.training
        self.model.eval()
        total = torch.zeros((), device=self.args.device)
        tokens, right = torch.zeros_like(total), torch.zeros_like(total)
        for batch in self._held_out_batches():
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                outputs = self.model(**inputs, use_cache=False, fused_lm_head=True)
            total -= outputs.log_probs.sum()
            right += outputs.is_top1.sum()
            tokens += outputs.label_mask.sum()
        self.model.train(was_training)
        return HeldOut(float(total / tokens), float(right / tokens))

    def _held_out_batches(self) -> DataLoader[Any]:
        """Return all held-out rows, also where several processes share the training."""
        return DataLoader(
            self.eval_dataset.select_columns(["input_ids", "labels"]),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=self.data_collator,
        )
