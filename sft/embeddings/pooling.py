"""What of a text's states becomes its vector: `POOLINGS` has one row for each ``pooling``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plumbline.errors import ModelError
from plumbline.tables import Table


@dataclass(frozen=True)
class Pooling:
    """A row of the table of poolings."""

    name: str
    key: str
    """What sentence-transformers calls it."""
    function: Callable[[Tensor, Tensor], Tensor]
    """Maps states [B, T, D] and a mask [B, T], which is 1 at tokens, to vectors [B, D]. Padding is
    on the right."""


def mean_of_states(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over a text's tokens, [B, D]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state at a text's last token, [B, D]."""
    return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]


POOLINGS = Table(
    "pooling",
    [
        Pooling("mean", "pooling_mode_mean_tokens", mean_of_states),
        Pooling("last", "pooling_mode_lasttoken", last_state),
    ],
)


def pooling_of(settings: Mapping[str, Any], file: Path) -> str:
    """Return the name of the pooling that a file of sentence-transformers asks for.

    Raises `ModelError` for one that is not in the table, or for several at once.
    """
    keys = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]
    names = [name for name, row in POOLINGS.items() if keys == [row.key]]
    if not names:
        raise ModelError(
            f"{file} asks for {', '.join(keys) or 'no pooling'}, which is not done here. Give an "
            f"embedding model with one of {', '.join(row.key for row in POOLINGS.values())}."
        )
    return names[0]
