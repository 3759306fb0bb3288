"""Matched budgets: the checkpoint at which each training run is compared, so that none had more.

By a cost (responses, tokens, optimizer steps, seconds) the last checkpoint within the limit stands
for a training run. By KL the scores are interpolated to the same KL, prompt by prompt, between the
two checkpoints around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison.training_runs import CheckpointEval, TrainingRun
from plumbline.config import Config, only_when
from plumbline.errors import ConfigError

By = Literal["kl", "responses", "tokens", "steps", "seconds", "none"]
#: What a limit counts, in words.
UNITS = {
    "kl": "nats per response from the baseline",
    "responses": "responses trained on",
    "tokens": "tokens sampled and trained on",
    "steps": "optimizer steps",
    "seconds": "seconds of training",
}
#: Relative difference that rounding may make between a cost and the limit.
_TOLERANCE = 1e-9
#: KL of a policy to itself that rounding may show, in nats per response.
_KL_ROUNDING = 1e-3


class BudgetConfig(Config):
    """At which point of their training policies are compared, besides the end."""

    by: By = "kl"
    """What is equal: kl, responses, tokens, steps, seconds, or none."""
    limit: float | None = only_when(
        lambda config: config.by != "none", "by: another value than none", None, gt=0
    )
    """How much of it. Null: the most that every training run reached."""


class Budget(NamedTuple):
    """A budget with its limit."""

    by: By
    limit: float
    text: str
    """In words."""


class Matched(NamedTuple):
    """Where a training run meets the budget: between two checkpoints.

    ``share``: how far from ``before`` to ``after``, from 0 to 1.
    """

    before: CheckpointEval
    after: CheckpointEval
    share: float

    @property
    def nearest(self) -> CheckpointEval:
        """The nearer checkpoint."""
        return self.after if self.share >= 0.5 else self.before

    def scores(self, scorer: str, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return the score of each prompt, [P], interpolated between the checkpoints."""
        before, after = (_scores(c, scorer, prompts) for c in (self.before, self.after))
        return (1 - self.share) * before + self.share * after


def resolve_budget(runs: Sequence[TrainingRun], config: BudgetConfig) -> Budget | None:
    """Return the budget with its limit; None where nothing is or can be matched.

    Raises `ConfigError` for a limit that some training run cannot be held to.
    """
    if config.by == "none" or not runs:
        return None
    reached = [_reached(run, config.by) for run in runs]
    if any(value is None for value in reached):
        if config.limit is None:
            return None
        unknown = ", ".join(
            run.name for run, value in zip(runs, reached, strict=True) if value is None
        )
        raise ConfigError(
            f"The budget is set by {config.by}, which is not known of {unknown}. Add their "
            + ("log-probabilities" if config.by == "kl" else "costs")
            + ", or set another budget."
        )
    smallest = min(value for value in reached if value is not None)
    limit = smallest if config.limit is None else config.limit
    if not limit > 0:
        return None
    origin = "the most that every training run reached" if config.limit is None else "as set"
    return Budget(config.by, limit, f"{limit:,.3g} {UNITS[config.by]}, {origin}")


def match_budget(run: TrainingRun, budget: Budget) -> Matched | None:
    """Return where a training run meets the budget; None where it never does."""
    if budget.by == "kl":
        return _match_kl(run.checkpoints, budget.limit)
    within = [
        checkpoint
        for checkpoint in run.checkpoints
        if (cost := checkpoint.costs.get(budget.by)) is not None
        and cost <= budget.limit * (1 + _TOLERANCE)
        and (checkpoint.step > 0 or len(run.checkpoints) == 1)
    ]
    return Matched(within[-1], within[-1], 1.0) if within else None


def scores_of(
    checkpoints: Sequence[CheckpointEval | Matched], scorer: str, prompts: Sequence[str]
) -> NDArray[np.float64]:
    """Return scores [S, P], one row per training run."""
    return np.stack(
        [
            checkpoint.scores(scorer, prompts)
            if isinstance(checkpoint, Matched)
            else _scores(checkpoint, scorer, prompts)
            for checkpoint in checkpoints
        ]
    )


def prompts_of_all_checkpoints(runs: Sequence[TrainingRun], prompts: Sequence[str]) -> list[str]:
    """Return the prompts that every checkpoint of every training run responded to, in order."""
    shared = set(prompts)
    for run in runs:
        for checkpoint in run.checkpoints:
            shared &= {row["prompt_id"] for row in checkpoint.rows}
    return [identity for identity in prompts if identity in shared]


def _reached(run: TrainingRun, by: str) -> float | None:
    if by == "kl":
        kls = [kl for checkpoint in run.checkpoints if (kl := checkpoint.kl) is not None]
        return max(kls) if len(kls) == len(run.checkpoints) else None
    return run.final.costs.get(by)


def _match_kl(checkpoints: Sequence[CheckpointEval], target: float) -> Matched | None:
    """Return where KL first reaches ``target``; the share is by √KL, as the frontier is drawn."""
    previous: CheckpointEval | None = None
    for checkpoint in checkpoints:
        kl = max(0.0, checkpoint.kl or 0.0)
        if kl >= target * (1 - _TOLERANCE):
            if previous is None:
                is_equal = math.isclose(kl, target, abs_tol=_KL_ROUNDING)
                return Matched(checkpoint, checkpoint, 1.0) if is_equal else None
            low, high = math.sqrt(max(0.0, previous.kl or 0.0)), math.sqrt(kl)
            share = 1.0 if high <= low else (math.sqrt(target) - low) / (high - low)
            return Matched(previous, checkpoint, min(1.0, max(0.0, share)))
        previous = checkpoint
    return None


def _scores(checkpoint: CheckpointEval, scorer: str, prompts: Sequence[str]) -> NDArray[np.float64]:
    rows = {row["prompt_id"]: row for row in checkpoint.rows}
    return np.array([float(rows[identity][scorer]) for identity in prompts])
