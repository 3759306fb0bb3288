"""Loading a trained reward model of any kind as a scorer."""

from __future__ import annotations

from pathlib import Path

from plumbline.errors import ModelError
from plumbline.runs.artifacts import Artifact
from reward.content import ENSEMBLE
from reward.ensemble import EnsembleScorer
from reward.process.scorer import PROCESS, ProcessScorer
from reward.scorer import RewardModelScorer

RewardScorer = RewardModelScorer | EnsembleScorer | ProcessScorer


def reward_scorer(
    model: Artifact | Path, batch_size: int = 64, label: str | None = None
) -> RewardScorer:
    """Return what scores by a reward model in a folder: one, an ensemble, or one of steps.

    ``label``: of a classifier with two labels, the good one. Raises `ModelError`.
    """
    folder = model.path if isinstance(model, Artifact) else model
    if not takes_label(folder):
        if label is not None:
            raise ModelError(
                f"reward_label is {label!r}, which chooses between two labels of a classifier, and "
                f"{folder} is a reward model of Plumbline's own. Leave it out."
            )
        if (folder / ENSEMBLE).exists():
            return EnsembleScorer.read(folder, batch_size)
        return ProcessScorer(folder, batch_size=batch_size)
    return RewardModelScorer(model, batch_size, label)


def takes_label(folder: Path) -> bool:
    """Return whether a folder may hold a classifier, whose good label can be named."""
    return not any((folder / file).exists() for file in (ENSEMBLE, PROCESS))
