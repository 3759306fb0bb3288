"""Interfaces between rooms, which never import each other.

A stage that needs a reward takes a `Scorer`, a stage that trains takes an `EvaluationHook`. The
rooms `reward` and `evaluation` implement them; the recipe passes them in.
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
    """Scores responses by their text, so its tokenizer may differ from the policy's."""

    name: str

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return one number per response; more is better."""
        ...


def problem_with(scorer: Scorer, prompt: Sequence[Message]) -> str | None:
    """Return why a scorer can score no response to a prompt, in words that follow its name.

    None where it can, or where the scorer does not say: a scorer may have a ``problem_with`` of
    its own, so that prompts its chat template refuses are left out before a run.
    """
    check = getattr(scorer, "problem_with", None)
    problem: str | None = check(prompt) if check is not None else None
    return problem


def term_means(scorer: Scorer) -> dict[str, float]:
    """Return what a scorer's last scores were made of, for a log: ``reward/TERM``, its mean.

    Empty where the scorer has no terms: a weighted sum has ``term_means`` of its own.
    """
    means: Mapping[str, float] = getattr(scorer, "term_means", {})
    return {f"reward/{name}": mean for name, mean in means.items()}


@runtime_checkable
class Mountable(Scorer, Protocol):
    """A scorer whose model can share a base that is already loaded, so that no base is held twice.

    The result of `mount` has an ``adapter``, its name on that base, and ``linear()``, the weight
    [1, H] and bias [1] that turn a last hidden state into its score.
    """

    def mount(self, model: Any) -> Scorer:
        """Return the scorer on a PEFT model's base, or itself if it has another base."""
        ...


class EvaluationHook(Protocol):
    """Evaluates a policy while it trains, in the same way as afterwards."""

    def __call__(
        self, policy: Policy, reference: Policy, step: int, folder: Path
    ) -> Mapping[str, float]:
        """Return metrics for ``metrics.jsonl``; samples may be written to ``folder``."""
        ...


class ScorerHook(Protocol):
    """Evaluates a reward model while it trains, on held-out data."""

    def judge_scorer(self, scorer: Scorer, step: int, folder: Path) -> Mapping[str, float]:
        """Return metrics for ``metrics.jsonl``; scores may be written to ``folder``."""
        ...
