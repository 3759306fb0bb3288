"""The steps of a response: where they end, and what their rewards come to.

Shapes: ``K`` steps of a response.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plumbline.tables import Table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Below this a probability counts as this, so that a product keeps an order.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class StepSplit:
    """A way of cutting a response into steps: a row of the table."""

    name: str
    function: Callable[[str], list[str]]
    """Maps a text to pieces, of which it consists."""


def lines(text: str) -> list[str]:
    """Return the lines that are not blank, each with the line breaks behind it."""
    return re.findall(r"\s*\S[^\n]*\s*?(?:\n\s*|$)", text)


def sentences(text: str) -> list[str]:
    """Return the sentences; a point between digits ends none."""
    return re.findall(r"\s*\S.*?(?:[.!?]+(?=\s|$)\s*|$)", text, re.DOTALL)


STEP_SPLITS = Table(
    "way of cutting a response into steps",
    [StepSplit("lines", lines), StepSplit("sentences", sentences)],
    from_function=StepSplit,
)


@dataclass(frozen=True)
class StepCombination:
    """A way of making one reward of those of the steps: a row of the table."""

    name: str
    function: Callable[[Sequence[float]], float]
    """Maps probabilities [K] that each step is right, K >= 1, to a reward."""


def product(steps: Sequence[float]) -> float:
    """Return the sum of log-probabilities: the product, as the probability that all are right.

    Lightman et al. (2023), "Let's Verify Step by Step", section 2.3, rank solutions by it.
    """
    return sum(math.log(max(step, _SMALLEST)) for step in steps)


def minimum(steps: Sequence[float]) -> float:
    """Return the least: a solution is as good as its worst step (Wang et al., 2024, eq. 5)."""
    return min(steps)


def last(steps: Sequence[float]) -> float:
    """Return that of the last step, which stands for the whole solution before it."""
    return steps[-1]


STEP_COMBINATIONS = Table(
    "way of combining the rewards of steps",
    [
        StepCombination("product", product),
        StepCombination("minimum", minimum),
        StepCombination("last", last),
    ],
    from_function=StepCombination,
)


def step_ends(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], steps: Sequence[str]
) -> list[int]:
    """Return which of a response's tokens ends each of its steps, [K], counted from 0.

    That is the first token with which the step's text is complete; spaces behind it do not count.
    Text that the chat template writes otherwise than the response has it ends with the response.
    """
    text = tokenizer.decode(ids, skip_special_tokens=False)

    def decoded(count: int) -> int:
        return len(tokenizer.decode(ids[:count], skip_special_tokens=False))

    places, cursor = [], 0
    for step in steps:
        start = text.find(step.strip(), cursor)
        cursor = len(text) if start < 0 else start + len(step.strip())
        count = bisect.bisect_left(range(len(ids) + 1), cursor, key=decoded)
        places.append(min(max(count, 1), len(ids)) - 1)
    return places
