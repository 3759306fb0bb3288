"""TRL's SFTTrainer with exact resume, weights of tokens, and a held-out loss for any batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import trl
from torch import Tensor
from torch.utils.data import DataLoader

from plumbline.training.exact_resume import ExactResume
from plumbline.training.held_out import HeldOutConfig, HeldOutWatch
from sft.train import TOKEN_WEIGHTS


class HeldOut(NamedTuple):
    """How well a policy predicts demonstrations that it has not seen."""

    loss: float
    """Mean negative log-probability of a learnt token, in nats."""
    token_accuracy: float
    """Share of learnt tokens that the policy finds most likely."""


class SFTTrainer(ExactResume, trl.SFTTrainer):  # type: ignore[misc]
    """TRL's trainer on rows with ``input_ids`` and ``labels``, and perhaps ``token_weights``."""

    data_collator: Any
    _signature_columns: Any

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.data_collator = WithTokenWeights(self.data_collator)

    def watch_held_out(self, config: HeldOutConfig) -> HeldOutWatch | None:
        """Look at held-out rows while the model trains, where the config says so."""
        if config.every is None:
            return None
        self.held_out_watch = HeldOutWatch(
            config, self._held_out_figures, self.model, self.trained_names
        )
        return self.held_out_watch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss, or with weights of tokens the weighted one.

        TRL's own loss is the mean over learnt tokens; its metrics stay.
        """
        weights = inputs.pop(TOKEN_WEIGHTS, None)
        if weights is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        outputs = model(**inputs, fused_lm_head=True, use_cache=False)
        count = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        self._total_train_tokens += int(inputs["attention_mask"].sum())
        loss = weighted_loss(outputs.log_probs, weights) / count
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if TOKEN_WEIGHTS not in self._signature_columns:
            self._signature_columns = [*self._signature_columns, TOKEN_WEIGHTS]

    def _held_out_figures(self) -> Mapping[str, float]:
        held_out = self.held_out()
        return {
            "held_out_loss": held_out.loss,
            "held_out_token_accuracy": held_out.token_accuracy,
        }

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


def weighted_loss(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of - weight * log-probability over the tokens of a batch, in nats.

    Args:
        logprobs: [B, P] of each token but the first, given those before it; 0 where nothing is
            learnt. Virtual tokens may stand in front.
        weights: [B, T] of each token, T - 1 <= P.
    """
    own = weights[:, 1:]
    return -(logprobs[:, -own.shape[1] :] * own).sum()


class WithTokenWeights:
    """A collator that also collates weights of tokens, where rows have them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a batch, with the weights as a tensor [B, T], 0 at padding."""
        batch: dict[str, Any] = self._collate(examples)
        if TOKEN_WEIGHTS in examples[0]:
            width = batch["input_ids"].shape[1]
            batch[TOKEN_WEIGHTS] = torch.tensor(
                [
                    [*example[TOKEN_WEIGHTS], *[0.0] * (width - len(example[TOKEN_WEIGHTS]))]
                    for example in examples
                ]
            )
        return batch
