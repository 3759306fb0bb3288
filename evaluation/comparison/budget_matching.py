"""Matching budgets: which checkpoint of each training is compared, so that neither had more.

By a cost (responses learnt from, tokens, optimiser steps, seconds) the last checkpoint within the
limit stands for a training. By KL the scores are interpolated to exactly the same KL, prompt by
prompt, between the two checkpoints that lie around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from evaluation.comparison.training_runs import Look, Trained
from plumbline.config import Config
from plumbline.errors import ConfigError

By = Literal["kl", "responses", "tokens", "steps", "seconds", "none"]
#: What a limit counts, in words.
UNITS = {
    "kl": "nats a response from the first policy",
    "responses": "responses learnt from",
    "tokens": "tokens sampled and trained on",
    "steps": "optimiser steps",
    "seconds": "seconds of training",
}
_SLACK = 1e-9


class BudgetConfig(Config):
    """At which point of their training policies are compared, beside the end of it."""

    by: By = "kl"
    """What is made equal: kl, responses, tokens, steps, seconds, or none."""
    limit: float | None = Field(None, gt=0)
    """How much of it; null is the most that every training reached."""


class Budget(NamedTuple):
    """A budget with its limit settled."""

    by: By
    limit: float
    text: str
    """In words."""


class Matched(NamedTuple):
    """Where a training meets the budget: between two looks, ``share`` of the way to the later."""

    before: Look
    after: Look
    share: float

    @property
    def nearest(self) -> Look:
        """The look that is nearer."""
        return self.after if self.share >= 0.5 else self.before

    def scores(self, scorer: str, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return the score of each prompt, [prompts], interpolated between the looks."""
        low, high = (_scores(look, scorer, prompts) for look in (self.before, self.after))
        return (1 - self.share) * low + self.share * high


def settle(trained: Sequence[Trained], config: BudgetConfig) -> Budget | None:
    """Return the budget with its limit; None where nothing is matched or it cannot be.

    Raises `ConfigError` where a limit is set that no training can be held to.
    """
    if config.by == "none" or not trained:
        return None
    reached = [_reached(one, config.by) for one in trained]
    if any(value is None for value in reached):
        if config.limit is None:
            return None
        lacking = ", ".join(
            one.name for one, value in zip(trained, reached, strict=True) if value is None
        )
        raise ConfigError(
            f"The budget is set by {config.by}, which is not known of {lacking}. Give their "
            + ("log-probabilities" if config.by == "kl" else "costs")
            + ", or match by something else."
        )
    least = min(value for value in reached if value is not None)
    limit = least if config.limit is None else config.limit
    if not limit > 0:
        return None
    chosen = "the most that every training reached" if config.limit is None else "as set"
    return Budget(config.by, limit, f"{limit:,.3g} {UNITS[config.by]}, {chosen}")


def match(one: Trained, budget: Budget) -> Matched | None:
    """Return where a training meets the budget; None where it never does."""
    if budget.by == "kl":
        return _at_kl(one.looks, budget.limit)
    within = [
        look
        for look in one.looks
        if (cost := look.costs.get(budget.by)) is not None
        and cost <= budget.limit * (1 + _SLACK)
        and (look.checkpoint > 0 or len(one.looks) == 1)
    ]
    return Matched(within[-1], within[-1], 1.0) if within else None


def matrix(
    looks: Sequence[Look | Matched], scorer: str, prompts: Sequence[str]
) -> NDArray[np.float64]:
    """Return scores [trainings, prompts]."""
    return np.stack(
        [
            look.scores(scorer, prompts)
            if isinstance(look, Matched)
            else _scores(look, scorer, prompts)
            for look in looks
        ]
    )


def prompts_of_all(trained: Sequence[Trained], prompts: Sequence[str]) -> list[str]:
    """Return the prompts that every look of every training has answered, in order."""
    shared = set(prompts)
    for one in trained:
        for look in one.looks:
            shared &= {row["prompt_id"] for row in look.rows}
    return [identity for identity in prompts if identity in shared]


def _reached(one: Trained, by: str) -> float | None:
    if by == "kl":
        found = [kl for look in one.looks if (kl := look.kl) is not None]
        return max(found) if len(found) == len(one.looks) else None
    return one.final.costs.get(by)


def _at_kl(looks: Sequence[Look], target: float) -> Matched | None:
    """Return where KL first comes to ``target``; the share is by √KL, as the frontier is drawn."""
    previous: Look | None = None
    for look in looks:
        kl = max(0.0, look.kl or 0.0)
        if kl >= target * (1 - _SLACK):
            if previous is None:
                return Matched(look, look, 1.0) if math.isclose(kl, target) else None
            low, high = math.sqrt(max(0.0, previous.kl or 0.0)), math.sqrt(kl)
            share = 1.0 if high <= low else (math.sqrt(target) - low) / (high - low)
            return Matched(previous, look, min(1.0, max(0.0, share)))
        previous = look
    return None


def _scores(look: Look, scorer: str, prompts: Sequence[str]) -> NDArray[np.float64]:
    rows = {row["prompt_id"]: row for row in look.rows}
    return np.array([float(rows[identity][scorer]) for identity in prompts])
