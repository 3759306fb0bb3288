"""Pairs on their way to a pass: examples, what their rows say, and batches of them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from plumbline.errors import DataError
from plumbline.lm.branches import Branches
from plumbline.training.pairs import EncodedPair
from plumbline.training.row_file import LazyRows
from preference.config import DPOConfig

#: What stands for a column that the settings do not name.
_PLAIN = {"label_smoothing": 0.0, "margin": 1.0, "weight": 1.0}


class PairExample(NamedTuple):
    """A pair as ids, with the numbers of its row."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    label_smoothing: float = 0.0
    """Probability that the label is wrong, where there are soft labels."""
    margin: float = 1.0
    """Graded label, by which the target margin is multiplied."""
    weight: float = 1.0
    """By which its loss is multiplied."""
    reference: tuple[float, float] | None = None
    """Log-probabilities of both responses under the reference, where they are known before."""

    @property
    def responses(self) -> list[list[int]]:
        """What is read behind the prompt."""
        return [self.chosen_ids, self.rejected_ids]


@dataclass(frozen=True)
class PairBatch:
    """Pairs that are read together. Shapes: ``B`` pairs."""

    branches: Branches
    tokens: Tensor
    """[B, 2] tokens of the chosen and of the rejected response."""
    label_smoothing: Tensor
    """[B]."""
    margins: Tensor
    """[B]."""
    weights: Tensor
    """[B]."""
    reference: Tensor | None
    """[B, 2] log-probabilities under the reference, where they are known."""

    @property
    def tokens_seen(self) -> int:
        """Tokens of each response behind a prompt of its own, however the pass lays them out."""
        prompts = sum(len(prompt) for prompt in self.branches.prompts)
        return 2 * prompts + int(self.tokens.sum())


def collate_pairs(examples: Sequence[PairExample]) -> dict[str, PairBatch]:
    """Return a batch, under the name by which the trainer finds it."""
    responses = [[list(x.chosen_ids), list(x.rejected_ids)] for x in examples]
    numbers = torch.tensor([[x.label_smoothing, x.margin, x.weight] for x in examples])
    known = [x.reference for x in examples if x.reference is not None]
    return {
        "pairs": PairBatch(
            Branches([list(x.prompt_ids) for x in examples], responses),
            torch.tensor([[len(chosen), len(rejected)] for chosen, rejected in responses]),
            numbers[:, 0],
            numbers[:, 1],
            numbers[:, 2],
            torch.tensor(known) if len(known) == len(examples) else None,
        )
    }


def pair_examples(
    pairs: Sequence[EncodedPair], config: DPOConfig, origin: str
) -> LazyRows[PairExample]:
    """Return examples with the numbers of the columns that the settings name.

    Raises `DataError` where a column is missing, or has what is not such a number.
    """
    soft = _column(pairs, "soft_labels", config.soft_labels, origin, most=1.0)
    margins = _column(pairs, "margins", config.margins, origin)
    weights = _column(pairs, "sample_weights", config.sample_weights, origin)

    def read(number: int) -> PairExample:
        pair = pairs[number]
        return PairExample(
            pair.prompt_ids,
            pair.chosen_ids,
            pair.rejected_ids,
            _PLAIN["label_smoothing"] if soft is None else 1 - soft[number],
            _PLAIN["margin"] if margins is None else margins[number],
            _PLAIN["weight"] if weights is None else weights[number],
        )

    return LazyRows(len(pairs), read)


def _column(
    pairs: Sequence[EncodedPair],
    setting: str,
    column: str | None,
    origin: str,
    most: float | None = None,
) -> Sequence[float] | None:
    """Return the numbers of a column, 0 at least and ``most`` at most; None for no column."""
    if column is None:
        return None
    values = array("d")
    upper = float("inf") if most is None else most
    expected = "a number from 0" if most is None else f"a number from 0 to {most:g}"
    for pair in pairs:
        row = pair.row
        value: Any = row.get(column)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not (0 <= value <= upper and isfinite(value)):
            raise DataError(
                f"dpo.{setting} is {column!r}, but {origin}, pair {row.get('pair_id', '?')}, has "
                f"{value!r} there, and not {expected}. Name a column that has one in every row (of "
                f"a file: one that preferences.keep names), or set dpo.{setting} to null."
            )
        values.append(float(value))
    return values
