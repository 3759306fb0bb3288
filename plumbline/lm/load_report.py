"""What a library had to make up or pass over when it loaded a model: always an error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plumbline.errors import ModelError


class LoadReport:
    """What a model's files lacked, and had too much of, as transformers reports it."""

    def __init__(self, name: str, model: Any, info: dict[str, Any]) -> None:
        self.name = name
        self.missing = set(info["missing_keys"])
        self.unexpected = set(info["unexpected_keys"])
        self._trunk = f"{model.base_model_prefix}."

    @property
    def above_the_trunk(self) -> set[str]:
        """Names of weights that stand on the decoder: the heads."""
        return {n for n in self.missing | self.unexpected if not n.startswith(self._trunk)}

    def refuse(self, names: Iterable[str], what: str) -> None:
        """Raise `ModelError` if there are such names: the model is not ``what``."""
        names = set(names)
        missing, unexpected = names & self.missing, names & self.unexpected
        if missing:
            raise ModelError(
                f"{self.name} is not the whole of {what}: {listed(missing)} is not in its files, "
                "and would be random. "
                + (f"It has {listed(unexpected)} instead. " if unexpected else "")
                + "Fetch the model again, or give another."
            )
        if unexpected:
            raise ModelError(
                f"{self.name} has weights that {what} of its config has no place for: "
                f"{listed(unexpected)}. If they are not needed, load it with transformers and "
                "save it again without them."
            )


def listed(names: Iterable[str], at_most: int = 4) -> str:
    """Return names as a list in a sentence."""
    ordered = sorted(names)
    more = f" and {len(ordered) - at_most} more" if len(ordered) > at_most else ""
    return ", ".join(ordered[:at_most]) + more
