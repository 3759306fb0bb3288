"""Several aspects in one reward model: an output for each, and the weights of their sum."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from plumbline.errors import ModelError
from plumbline.runs.artifacts import read_json, write_json

ASPECTS = "aspects.json"


class Aspects(NamedTuple):
    """What the outputs of a reward model are, in their order."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    """Of each aspect in the reward."""

    @classmethod
    def read(cls, folder: Path, outputs: int) -> Aspects | None:
        """Return the aspects of a model with so many outputs; None where it has a single reward.

        Raises `ModelError` where the file names other outputs than the model has.
        """
        file = folder / ASPECTS
        if not file.exists():
            if outputs == 1:
                return None
            raise ModelError(
                f"{folder} has {outputs} outputs and no {ASPECTS}, which says how they make a "
                "reward. Write one: "
                '{"names": [NAME, …], "weights": [NUMBER, …]}, in the order of the outputs.'
            )
        values = read_json(file)
        aspects = cls(tuple(values["names"]), tuple(values["weights"]))
        if not len(aspects.names) == len(aspects.weights) == outputs:
            raise ModelError(
                f"{file} has {len(aspects.names)} names and {len(aspects.weights)} weights, and "
                f"the model {outputs} outputs. Name each of them, with its weight."
            )
        return aspects

    def write(self, folder: Path) -> None:
        """Write ``aspects.json`` beside the model."""
        write_json(folder / ASPECTS, {"names": list(self.names), "weights": list(self.weights)})
