"""The scale of a reward model: mean 0 and standard deviation 1 on held-out pairs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plumbline.errors import DataError
from plumbline.runs.artifacts import read_json, write_json
from reward.temperature import fit_temperature

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What the model's own output becomes, and how long the texts were that it was trained on."""

    mean: float = 0.0
    """Mean of the model's outputs on held-out pairs."""
    std: float = 1.0
    """Their standard deviation."""
    max_length: int | None = None
    """Longest prompt with its response in training, in tokens; null where that is not known."""
    temperature: float | None = None
    """P(A over B) = sigmoid((score of A - score of B) / temperature), fitted on held-out pairs.
    Null where none was fitted, or none is best."""

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """Read a reward model's scale; a model without one keeps its own outputs."""
        file = folder / CALIBRATION
        if not file.exists():
            return cls()
        values = read_json(file)
        # Versions before 0.2 wrote the standard deviation under this other name.
        std = values.get("std", values.get("deviation", 1.0))
        return cls(values["mean"], std, values.get("max_length"), values.get("temperature"))

    def write(self, folder: Path) -> None:
        """Write ``calibration.json`` beside the model."""
        write_json(folder / CALIBRATION, asdict(self))

    def apply(self, output: float) -> float:
        """Return the calibrated score of a model's output."""
        return (output - self.mean) / self.std


def calibrated(chosen: Sequence[float], rejected: Sequence[float], max_length: int) -> Calibration:
    """Return the scale on which scores have mean 0 and standard deviation 1, with a temperature."""
    scores = [*chosen, *rejected]
    if not all(map(math.isfinite, scores)):
        raise DataError(
            "The reward model gives a held-out response no finite score: its training diverged. "
            "Train it at a lower learning rate."
        )
    std = statistics.stdev(scores)
    if std == 0:
        raise DataError(
            "The reward model gives every held-out response the same score, so there is no scale "
            "to put it on. Train it for longer, or at a higher learning rate."
        )
    margins = [(better - worse) / std for better, worse in zip(chosen, rejected, strict=True)]
    return Calibration(statistics.mean(scores), std, max_length, fit_temperature(margins))
