"""What stages need from each other without knowing each other.

A reward-using stage takes a `Scorer`; a training stage takes an `EvaluationHook`. The reward room
and the evaluation room make these; the recipe hands them over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from plumbline.records import Message

if TYPE_CHECKING:
    from plumbline.policy import Policy


@runtime_checkable
class Scorer(Protocol):
    """Judges responses by their text, so that its tokenizer may differ from the policy's."""

    name: str

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number a response; more is better."""
        ...


class EvaluationHook(Protocol):
    """Judges a policy while it trains, as it will be judged afterwards."""

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Return figures for ``metrics.jsonl``; samples may be left in ``folder``."""
        ...
