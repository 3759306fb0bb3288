"""Ways in which the processes of a training share its memory. Each is one row."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import NamedTuple

from plumbline.errors import ConfigError

#: What it is called where each process has a whole copy.
DDP = "ddp"


class Sharding(NamedTuple):
    """What each of several processes holds a share of; the rest it holds whole."""

    name: str
    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    zero_stage: int | None = None
    """Of DeepSpeed's ZeRO, where that does it; else torch does."""
    steps_a_copy: bool = False
    """Whether the optimiser holds its share of the weights that train once more."""

    @property
    def by_rows(self) -> bool:
        """Whether a share of a tensor is some of its rows, as torch's `DTensor`."""
        return self.weights and self.zero_stage is None


_ROWS = (
    Sharding(DDP),
    Sharding("fsdp2", weights=True, gradients=True, optimizer=True),
    Sharding("zero2", gradients=True, optimizer=True, zero_stage=2, steps_a_copy=True),
    Sharding("zero3", weights=True, gradients=True, optimizer=True, zero_stage=3),
)
#: By name; no `Table`, which the command line would have to import before its first words.
SHARDINGS: Mapping[str, Sharding] = {row.name: row for row in _ROWS}
#: Those in which something is shared.
SHARED = tuple(name for name in SHARDINGS if name != DDP)


def check_deepspeed(what: str) -> None:
    """Raise `ConfigError` where DeepSpeed is not installed. ``what``: which thing needs it."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            f"{what} needs DeepSpeed, and that is not installed: pip install "
            "'plumbline-rlhf[deepspeed]', or use --launch fsdp2."
        )
