"""Training a token classifier on labelled steps. Shapes: ``B`` rows, ``T`` tokens, ``M`` steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plumbline.lm.batches import pad_right_ids, position_ids
from plumbline.lm.trunk import is_supported, states
from plumbline.training.exact_resume import ExactResume
from reward.process.data import EncodedSteps

#: The labels of the classifier, in the order of its outputs.
WRONG_RIGHT = ("wrong", "right")


@dataclass(frozen=True)
class StepBatch:
    """Rows that are read together."""

    ids: Tensor
    """[B, T], padded on the right."""
    attention_mask: Tensor
    """[B, T]."""
    rows: Tensor
    """[M] the row of each step."""
    places: Tensor
    """[M] the token that ends it."""
    labels: Tensor
    """[M] probability that it is right."""


def collate_steps(examples: Sequence[EncodedSteps], pad_id: int) -> dict[str, StepBatch]:
    """Return a batch, under the name by which the trainer finds it."""
    ids, mask = pad_right_ids([example.ids for example in examples], pad_id)
    rows = [row for row, example in enumerate(examples) for _ in example.places]
    return {
        "steps": StepBatch(
            ids,
            mask,
            torch.tensor(rows),
            torch.tensor([place for example in examples for place in example.places]),
            torch.tensor([label for example in examples for label in example.labels]),
        )
    }


def step_outputs(model: Any, batch: StepBatch) -> Tensor:
    """Return a token classifier's outputs at the ends of the steps, [M, labels]."""
    device = model.device
    ids, mask = batch.ids.to(device), batch.attention_mask.to(device)
    rows, places = batch.rows.to(device), batch.places.to(device)
    if not is_supported(model):
        outputs: Tensor = model(input_ids=ids, attention_mask=mask).logits[rows, places]
        return outputs.float()
    hidden = states(model, ids, mask, position_ids(mask), last=ids.shape[1])[rows, places]
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.autocast(device.type, enabled=False):
        head: Tensor = whole.score(hidden.to(next(whole.score.parameters()).dtype))
    return head.float()


def step_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of steps, [M]: -p log P(right) - (1 - p) log P(wrong), in nats.

    Of ``outputs`` [M, 2] in the order `WRONG_RIGHT`, and the probability p [M] that a step is right
    (Lightman et al., 2023, section 2.6; soft labels as in Wang et al., 2024, eq. 3).
    """
    wrong, right = torch.log_softmax(outputs, dim=1).unbind(1)
    return -(labels * right + (1 - labels) * wrong)


class ProcessTrainer(ExactResume):
    """Trains a token classifier on the ends of steps."""

    def __init__(self, *, model: Any, pad_id: int, **arguments: Any) -> None:
        super().__init__(
            model=model,
            data_collator=lambda examples: collate_steps(examples, pad_id),
            **arguments,
        )
        self.model_accepts_loss_kwargs = False  # our loss is a mean over the steps of a batch
        self._total_train_tokens = 0
        self._accuracy: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean of the losses over the labelled steps of a batch."""
        batch: StepBatch = inputs["steps"]
        with self.accelerator.autocast():
            outputs = step_outputs(self.model, batch)
        labels = batch.labels.to(outputs.device)
        loss = step_losses(outputs, labels).mean()
        self._total_train_tokens += int(batch.attention_mask.sum())
        right = (outputs[:, 1] > outputs[:, 0]) == (labels > 0.5)
        self._accuracy["accuracy"].append(float(right.float().mean()))
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean accuracy since the last line."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._accuracy.items()}
            logs["num_tokens"] = float(self._total_train_tokens)
            self._accuracy.clear()
        super().log(logs, start_time)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs  # moved where they are read

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nothing reads it."""
        return 0
