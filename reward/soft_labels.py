"""Soft labels: the reward model learns how sure people were, and not only which way they leaned."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from plumbline.data.records import Row
from plumbline.errors import DataError

PROBABILITY = "chosen_probability"
"""The column of the tokenized dataset that holds soft labels."""


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, probability: Tensor | float) -> Tensor:
    """Return the cross-entropy of the Bradley-Terry model with soft labels, one per pair.

    - [p log sigma(r_chosen - r_rejected) + (1 - p) log sigma(r_rejected - r_chosen)]

    Args:
        chosen: rewards of the chosen responses, [B].
        rejected: rewards of the rejected ones, [B].
        probability: p, in [0, 1], that the chosen response is the better; [B], or one
            number for all. With 1 this is the ordinary pairwise loss.

    Returns:
        The losses in nats, [B]. The least possible one is the entropy of p, reached where
        sigma(r_chosen - r_rejected) = p.
    """
    difference = chosen - rejected
    return -(probability * F.logsigmoid(difference) + (1 - probability) * F.logsigmoid(-difference))


def probabilities_of(rows: Sequence[Row], column: str, origin: str) -> list[float]:
    """Return the soft labels of preference rows.

    Raises `DataError` where there is no such column, or a value that is not a probability.
    """
    targets = []
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
                f"{origin}, pair {row.get('pair_id', '?')}: {column!r} is {value!r}, which is not "
                "a probability that the chosen response is the better. Take a column that has one "
                "for every pair, such as soft_label, or set soft_labels to null."
            )
        targets.append(float(value))
    return targets
