"""The scale of a reward model: mean 0 and standard deviation 1 on held-out pairs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from plumbline.runs.artifacts import read_json, write_json

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
