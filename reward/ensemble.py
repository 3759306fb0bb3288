"""Several reward models as one: where they disagree, none of them is to be trusted.

Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization". Reward models that
were trained on the same preferences agree near what they have seen and part ways far from it,
which is where a policy goes that exploits the errors of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.hooks import Scorer, problem_with
from plumbline.lm.load import base_with_idle_adapter
from plumbline.lm.model_folder import source_of
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.tables import Table
from reward.calibration import Calibration
from reward.content import ENSEMBLE
from reward.mounted import read_together, scores_together
from reward.scorer import RewardModelScorer

Scores = npt.NDArray[np.float64]
"""[K, N]: rewards of K members for N responses, on one scale."""


@dataclass(frozen=True)
class Combination:
    """A way of making one reward of several: a row of the table."""

    name: str
    function: Callable[[Scores, float], Scores]
    """Maps rewards [K, N] and the weight of the uncertainty to rewards [N]."""
    title: str
    uses_weight: bool = False


def mean(scores: Scores, weight: float) -> Scores:
    """Return the mean over the members, [N]."""
    return np.asarray(scores.mean(axis=0))


def minimum(scores: Scores, weight: float) -> Scores:
    """Return the worst case: the lowest reward of any member, [N] (Coste et al., section 3)."""
    return np.asarray(scores.min(axis=0))


def less_uncertainty(scores: Scores, weight: float) -> Scores:
    """Return the mean less ``weight`` times the variance between members (divided by K), [N].

    The paper's uncertainty-weighted objective; ``weight`` is its lambda, in one over the unit of
    the rewards.
    """
    return np.asarray(mean(scores, weight) - weight * scores.var(axis=0))


COMBINATIONS = Table(
    "way of combining an ensemble",
    [
        Combination("mean", mean, "ensemble, mean"),
        Combination("minimum", minimum, "ensemble, minimum"),
        Combination(
            "uncertainty",
            less_uncertainty,
            "ensemble, mean less uncertainty",
            uses_weight=True,
        ),
    ],
    from_function=lambda name, function: Combination(name, function, name, uses_weight=True),
)


class EnsembleScorer:
    """A reward from several reward models.

    Each member scores on its own calibrated scale (mean 0 and standard deviation 1 on held-out
    pairs), so
    that none outweighs the others by the size of its numbers. Members that are adapters on one
    base share it: on their own they load it once, and in PPO they move in to the policy's. Where
    they read the same tokens, a text is encoded once and read by all in one pass.

    Raises `ConfigError` where there are fewer than two models, or the weight is negative.
    """

    name = "ensemble"

    calibration = Calibration()
    """The temperature of its scores, where its folder says one."""

    def __init__(
        self,
        models: Sequence[Artifact | Path],
        how: str = "mean",
        weight: float = 1.0,
        batch_size: int = 64,
        on: tuple[Any, str] | None = None,
    ) -> None:
        """Make an ensemble.

        ``on`` is a PEFT model whose base the members are to move in to, and what their adapters'
        names there begin with.
        """
        if len(models) < 2:
            raise ConfigError(
                f"An ensemble was given {len(models)} reward model(s), which cannot disagree. "
                "Give two or more, or score by the one."
            )
        try:
            self._combine = COMBINATIONS[how].function
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{error.args[0]}.") from None
        if weight < 0:
            raise ConfigError(
                f"The weight of an ensemble's uncertainty is {weight:g}, which would reward "
                "answers that its members disagree on. Give 0 or more."
            )
        self.how, self.weight = how, weight
        self._models, self._batch_size, self._on = list(models), batch_size, on
        self._last: tuple[Any, Any, Scores] | None = None

    @classmethod
    def read(cls, folder: Path, batch_size: int = 64) -> EnsembleScorer:
        """Return the ensemble that a training wrote to a folder. Raises `ModelError`."""
        file = folder / ENSEMBLE
        try:
            facts = read_json(file)
            members = [folder / name for name in facts["members"]]
            scorer = cls(members, facts["how"], facts["uncertainty_weight"], batch_size)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{file} does not describe an ensemble ({type(error).__name__}: {error}). It needs "
                "members (folders beside it), how, and uncertainty_weight."
            ) from None
        scorer.name, scorer.calibration = RewardModelScorer.name, Calibration.read(folder)
        return scorer

    @cached_property
    def members(self) -> list[Scorer]:
        """The reward models, each able to score; loaded when they are first asked for."""
        alone = [RewardModelScorer(model, self._batch_size) for model in self._models]
        trunk, start = self._on or (_shared_base([s.folder for s in alone]), "reward")
        return [
            scorer if trunk is None else scorer.mount(trunk, f"{start}-{number}")
            for number, scorer in enumerate(alone)
        ]

    def mount(self, model: Any, adapter: str = "reward") -> EnsembleScorer:
        """Return this ensemble with its members on a PEFT model's base, where they are of it."""
        mounted = EnsembleScorer(
            self._models, self.how, self.weight, self._batch_size, (model, adapter)
        )
        mounted.name, mounted.calibration = self.name, self.calibration
        return mounted

    @property
    def shortened(self) -> int:
        """Texts of which some member saw the end alone."""
        return max(getattr(member, "shortened", 0) for member in self.members)

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        problems = (problem_with(member, prompt) for member in self.members)
        return next((problem for problem in problems if problem is not None), None)

    def member_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> Scores:
        """Return every member's reward of each response, [members, responses]."""
        texts = (list(prompts), list(responses))
        if self._last is None or self._last[:2] != texts:  # a harness asks for both
            if self._reads_together:
                scores = scores_together(self.members, prompts, responses)  # type: ignore[arg-type]
            else:
                scores = [member.score(prompts, responses) for member in self.members]
            self._last = (*texts, np.array(scores, dtype=float))
        return self._last[2]

    @cached_property
    def _reads_together(self) -> bool:
        return read_together(self.members)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the ensemble's reward of each response."""
        scores = self._combine(self.member_scores(prompts, responses), self.weight)
        return [float(score) for score in scores]

    def ensemble_std(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        """Return the standard deviation of the members' rewards of each response (divided by K)."""
        scores = self.member_scores(prompts, responses)
        return [float(std) for std in scores.std(axis=0)]


def _shared_base(folders: Sequence[Path]) -> Any:
    """Load the base of the first reward model that is an adapter; None where none is."""
    adapters = [folder for folder in folders if source_of(folder).adapter is not None]
    return base_with_idle_adapter(adapters[0]) if adapters else None
