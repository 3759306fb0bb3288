"""The judges of ``plumbline evaluate``: scorers, and people or an LLM that compare pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import Deferred, defer
from plumbline.tables import Table

#: The task of the embedded world.
WORLD = "world"


@dataclass(frozen=True)
class Judge:
    """One way of judging responses, by its name on the command line."""

    name: str
    title: str
    needs: str
    """What it needs, in words that follow "it needs"."""
    is_available: Callable[[str, int], bool]
    """Whether it can judge a task, with so many reward models."""
    scorer: Callable[[int, Sequence[Artifact]], Deferred[Any]] | None = None
    """The scorer, from the data seed and the reward models; None for judges of pairs."""
    asks_people: bool = False
    """Whether people compare the pairs, so that their labels come from outside."""

    @property
    def compares_pairs(self) -> bool:
        """Whether it compares pairs of responses and gives no scores."""
        return self.scorer is None


def _gold(data_seed: int, _: Sequence[Artifact]) -> Deferred[Any]:
    from plumbline.world.gold import GoldUtility

    return defer(GoldUtility, data_seed=data_seed)


def _reward(_: int, rewards: Sequence[Artifact]) -> Deferred[Any]:
    from reward.load_scorer import reward_scorer

    return defer(reward_scorer, model=rewards[0])


def _ensemble(_: int, rewards: Sequence[Artifact]) -> Deferred[Any]:
    from reward.ensemble import EnsembleScorer

    return defer(EnsembleScorer, models=list(rewards))


JUDGES: Table[Judge] = Table(
    "judge",
    [
        Judge("gold", "gold utility", "the task 'world'", lambda task, _: task == WORLD, _gold),
        Judge("reward", "reward-model score", "one --reward", lambda _, n: n == 1, _reward),
        Judge("ensemble", "ensemble score", "two --reward or more", lambda _, n: n > 1, _ensemble),
        Judge("people", "people", "a --reference", lambda *_: True, asks_people=True),
        Judge("llm", "an LLM", "a --reference", lambda *_: True),
    ],
)


def scorers_of(
    task: str, rewards: Sequence[Artifact], data_seed: int, deciding: str | None
) -> list[Deferred[Any]]:
    """Return the scorers that apply to a task, deferred; the deciding one comes first."""
    judges = [judge for judge in JUDGES.values() if judge.is_available(task, len(rewards))]
    judges.sort(key=lambda judge: judge.name != deciding)
    return [judge.scorer(data_seed, rewards) for judge in judges if judge.scorer]
