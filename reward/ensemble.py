"""Several reward models as one: where they disagree, none of them is to be trusted.

Coste et al. (2023), "Reward Model Ensembles Help Mitigate Overoptimization". Reward models that
were trained on the same preferences agree near what they have seen and part ways far from it,
which is where a policy goes that exploits the errors of one of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from plumbline.data.records import Message
from plumbline.errors import ConfigError
from plumbline.hooks import Scorer
from plumbline.lm.load import trainable_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from reward.mounted import MountedScorer, same_base
from reward.scorer import RewardModelScorer

How = Literal["mean", "minimum", "uncertainty"]
"""How an ensemble comes to one reward; see `combined`."""
Scores = npt.NDArray[np.float64]


def combined(scores: Scores, how: How, weight: float) -> Scores:
    """Return one reward a response from those of all members (Coste et al., 2023, section 3).

    Args:
        scores: rewards of K members for N responses, shape (K, N), on one scale.
        how: ``mean``; ``minimum``, the worst case; ``uncertainty``: the mean less ``weight`` times
            the variance between members (divided by K).
        weight: lambda of the paper, in one over the unit of the rewards; read by ``uncertainty``
            alone.

    Returns:
        Rewards, shape (N,).
    """
    if how == "minimum":
        return np.asarray(scores.min(axis=0))
    mean = np.asarray(scores.mean(axis=0))
    return mean if how == "mean" else mean - weight * scores.var(axis=0)


class EnsembleScorer:
    """A reward from several reward models.

    Each member scores on its own calibrated scale (mean 0 and deviation 1 on held-out pairs), so
    that none outweighs the others by the size of its numbers. Members that are adapters on one
    base share it: on their own they load it once, and in PPO they move in to the policy's.

    Raises `ConfigError` where there are fewer than two models, or the weight is negative.
    """

    name = "ensemble"

    def __init__(
        self,
        models: Sequence[Artifact | Path],
        how: How = "mean",
        weight: float = 1.0,
        batch_size: int = 64,
        on: Any = None,
    ) -> None:
        """Make an ensemble; ``on`` is a PEFT model whose base the members are to move in to."""
        if len(models) < 2:
            raise ConfigError(
                f"An ensemble was given {len(models)} reward model(s), which cannot disagree. "
                "Give two or more, or score by the one."
            )
        if how not in get_args(How):
            raise ConfigError(f"An ensemble is taken by {', '.join(get_args(How))}, not {how!r}.")
        if weight < 0:
            raise ConfigError(
                f"The weight of an ensemble's uncertainty is {weight:g}, which would reward "
                "answers that its members disagree on. Give 0 or more."
            )
        self.how, self.weight = how, weight
        self._models, self._batch_size, self._on = list(models), batch_size, on
        self._last: tuple[Any, Any, Scores] | None = None

    @cached_property
    def members(self) -> list[Scorer]:
        """The reward models, each able to score; loaded when they are first asked for."""
        alone = [RewardModelScorer(model, self._batch_size) for model in self._models]
        trunk = self._on if self._on is not None else _shared_base([s.folder for s in alone])
        return [
            MountedScorer(scorer, trunk, f"reward-{number}")
            if trunk is not None and same_base(scorer.folder, trunk)
            else scorer
            for number, scorer in enumerate(alone)
        ]

    def mount(self, model: Any) -> EnsembleScorer:
        """Return this ensemble with its members on a PEFT model's base, where they are of it."""
        return EnsembleScorer(self._models, self.how, self.weight, self._batch_size, on=model)

    def member_scores(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> Scores:
        """Return every member's reward of each response, shape (members, responses)."""
        asked = (list(prompts), list(responses))
        if self._last is None or self._last[:2] != asked:  # a harness asks for both
            scores = [member.score(prompts, responses) for member in self.members]
            self._last = (*asked, np.array(scores, dtype=float))
        return self._last[2]

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the ensemble's reward of each response."""
        scores = combined(self.member_scores(prompts, responses), self.how, self.weight)
        return [float(score) for score in scores]

    def ensemble_std(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[float]:
        """Return the standard deviation of the members' rewards of each response (divided by K)."""
        scores = self.member_scores(prompts, responses)
        return [float(deviation) for deviation in scores.std(axis=0)]


def _shared_base(folders: Sequence[Path]) -> Any:
    """Load the base of the first reward model that is an adapter; None where none is.

    It comes with one idle adapter, as the others can only be added to a PEFT model.
    """
    sources = [source_of(folder) for folder in folders]
    bases = [source.base for source in sources if source.adapter is not None]
    if not bases:
        return None
    with tempfile.TemporaryDirectory() as named:
        bases[0].write(Path(named))
        model = trainable_causal_lm(Path(named), TuningConfig(method="lora", rank=1))
    model.eval()
    return model
