"""Soft labels: the reward model learns how sure people were, and not only which way they leaned."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from plumbline.data.records import Row
from plumbline.errors import DataError

PROBABILITY = "chosen_probability"
"""The column of the tokenized dataset that holds soft labels."""


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, probability: Tensor | float) -> Tensor:
    """Return the cross-entropy of the Bradley-Terry model with soft labels, a value a pair.

    - [p log sigma(r_chosen - r_rejected) + (1 - p) log sigma(r_rejected - r_chosen)]

    Args:
        chosen: rewards of the chosen responses, shape (B,).
        rejected: rewards of the rejected ones, shape (B,).
        probability: p, in [0, 1], that the chosen response is the better; shape (B,), or one
            number for all. With 1 this is the ordinary pairwise loss.

    Returns:
        The losses in nats, shape (B,). The least possible one is the entropy of p, reached where
        sigma(r_chosen - r_rejected) = p.
    """
    difference = chosen - rejected
    return -(probability * F.logsigmoid(difference) + (1 - probability) * F.logsigmoid(-difference))


def probabilities_of(rows: Sequence[Row], column: str, origin: str) -> list[float]:
    """Return the soft labels of preference rows.

    Raises `DataError` where there is no such column, or a value is no probability.
    """
    found = []
    for row in rows:
        if column not in row:
            names = [name for name, value in row.items() if isinstance(value, float)]
            close = difflib.get_close_matches(column, list(row), n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Columns of numbers: {names}."
            raise DataError(
                f"soft_labels is {column!r}, but {origin} has no such column, so there is nothing "
                f"to soften the labels with. {hint} Set it to null to train on hard labels."
            )
        value = row[column]
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise DataError(
                f"{origin}, pair {row.get('pair_id', '?')}: {column!r} is {value!r}, which is no "
                "probability that the chosen response is the better. Take a column that holds one "
                "for every pair, such as soft_label, or set soft_labels to null."
            )
        found.append(float(value))
    return found


class SoftLabels:
    """Makes TRL's RewardTrainer learn from soft labels; stands before it among the bases.

    TRL's own loss keeps everything else that it does (the centring of rewards, its figures); only
    its first term, the loss of a pair whose label is certain, is exchanged for ours. Rows without
    soft labels are trained on as ever.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return TRL's loss with its pairwise term softened."""
        probability = inputs.pop(PROBABILITY, None)
        theirs: Any = super()
        loss, outputs = theirs.compute_loss(model, inputs, True, num_items_in_batch)
        if probability is not None:
            chosen, rejected = torch.chunk(outputs.logits.squeeze(-1), chunks=2)
            hard = bradley_terry_loss(chosen, rejected, 1.0)
            loss = loss + (bradley_terry_loss(chosen, rejected, probability) - hard).mean()
        return (loss, outputs) if return_outputs else loss

    def _set_signature_columns_if_needed(self) -> None:
        theirs: Any = super()
        theirs._set_signature_columns_if_needed()
        ours: Any = self
        if PROBABILITY not in ours._signature_columns:
            ours._signature_columns = [*ours._signature_columns, PROBABILITY]


class WithProbabilities:
    """A collator of preferences that also collates soft labels, where rows have them."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, examples: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a batch, with soft labels as a tensor of shape (B,)."""
        batch: dict[str, Any] = self._collate(examples)
        if PROBABILITY in examples[0]:
            batch[PROBABILITY] = torch.tensor(
                [example[PROBABILITY] for example in examples], dtype=torch.float
            )
        return batch
