"""What stages need from each other without knowing each other.

A reward-using stage takes a `Scorer`; a training stage takes an `EvaluationHook`. The reward room
and the evaluation room make these; the recipe hands them over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from plumbline.data.records import Message

if TYPE_CHECKING:
    from plumbline.lm.policy import Policy


@runtime_checkable
class Scorer(Protocol):
    """Judges responses by their text, so that its tokenizer may differ from the policy's."""

    name: str

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number a response; more is better."""
        ...


@runtime_checkable
class Mountable(Scorer, Protocol):
    """A scorer whose model can move in to a base that is there already, so that none is held twice.

    What `mount` returns has an ``adapter``, the name it goes by on that base, and ``linear()``,
    the weight [1, H] and bias [1] that make its score of a last hidden state.
    """

    def mount(self, model: Any) -> Scorer:
        """Return the scorer on a PEFT model's base; itself, where it is of another base."""
        ...


class EvaluationHook(Protocol):
    """Judges a policy while it trains, as it will be judged afterwards."""

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Return figures for ``metrics.jsonl``; samples may be left in ``folder``."""
        ...


class ScorerHook(Protocol):
    """Judges a reward model while it trains, on what it does not train on."""

    def judge_scorer(self, scorer: Scorer, step: int, folder: Path) -> Mapping[str, float]:
        """Return figures for ``metrics.jsonl``; scores may be left in ``folder``."""
        ...
