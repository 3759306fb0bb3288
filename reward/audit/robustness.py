"""Robustness: what the score does when a response is changed in a known way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from plumbline.data.records import Message, prompt_id
from plumbline.seeds import rng
from plumbline.statistics import holm
from reward.audit.perturbations import Expected, Perturbation
from reward.audit.shares import CONFIDENCE, Share, share_of

Score = Callable[[Sequence[Sequence[Message]], Sequence[str]], Sequence[float]]
#: A mean change of less, in standard deviations of the score, is noted and not held against it.
NEGLIGIBLE = 0.1
#: A paraphrase should move the score by less than this, up or down.
SAME = 0.25
FEWEST = 10


class Reaction(NamedTuple):
    """How the score reacted to a change."""

    name: str
    title: str
    expected: Expected
    responses: int
    """Responses that the change changed."""
    change: float
    """Mean change of the score, in standard deviations of it."""
    low: float
    high: float
    raised: Share
    """Share of responses whose score rose."""
    still_preferred: Share | None
    """Of pairs that were ranked rightly, those that still are; for changes that keep the sense."""
    p_value: float
    """That the reaction is as expected, after the correction over all changes."""
    is_weakness: bool


def perturbed(
    perturbation: Perturbation, prompts: Sequence[Sequence[Message]], responses: Sequence[str],
    seed: int,
) -> tuple[list[Sequence[Message]], list[str], list[int]]:  # fmt: skip
    """Return the changed prompts and responses, and the numbers of the rows that changed."""
    new_prompts, new_responses, numbers = [], [], []
    for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        draw = rng(seed, "perturbation", perturbation.name, prompt_id(prompt), response)
        if perturbation.swaps_prompt:
            others = [p for p in prompts if p != prompt]
            if not others:
                continue
            changed: tuple[Sequence[Message], str] = (draw.choice(others), response)
        else:
            changed = (prompt, perturbation.change(response, draw))
            if changed[1] == response:
                continue
        new_prompts.append(changed[0])
        new_responses.append(changed[1])
        numbers.append(number)
    return new_prompts, new_responses, numbers


def measure_reactions(
    score: Score,
    perturbations: Sequence[Perturbation],
    prompts: Sequence[Sequence[Message]],
    chosen: Sequence[str],
    chosen_scores: Sequence[float],
    rejected_scores: Sequence[float],
    std: float,
    seed: int,
    alpha: float = 0.05,
) -> list[Reaction]:
    """Return how a score reacts to changes of the chosen responses, [N] each.

    ``std`` is the standard deviation of the score, the unit of all changes. A weakness is a
    reaction that is not as expected beyond chance (Holm's correction over the changes) and not
    negligible: a score that rises where it should not, moves where it should not, or does not fall
    where it should.
    """
    reactions = []
    for perturbation in perturbations:
        new_prompts, texts, numbers = perturbed(perturbation, prompts, chosen, seed)
        if len(numbers) < FEWEST:
            continue
        new = np.asarray(score(new_prompts, texts), dtype=np.float64)
        keep = np.isfinite(new)
        index = np.asarray(numbers)[keep]
        changes = (new[keep] - np.asarray(chosen_scores)[index]) / std
        if len(changes) < FEWEST:
            continue
        was_right = np.asarray(chosen_scores)[index] > np.asarray(rejected_scores)[index]
        still = new[keep] > np.asarray(rejected_scores)[index]
        preferred = None
        if perturbation.expected == "same" and was_right.any():
            preferred = share_of(still[was_right].astype(float).tolist())
        reactions.append(_reaction(perturbation, changes.tolist(), preferred))
    adjusted = holm([reaction.p_value for reaction in reactions]) if reactions else []
    return [
        reaction._replace(p_value=p, is_weakness=p < alpha and _is_large(reaction))
        for reaction, p in zip(reactions, adjusted, strict=True)
    ]


def _reaction(
    perturbation: Perturbation, changes: Sequence[float], preferred: Share | None
) -> Reaction:
    values = np.asarray(changes)
    mean, error = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error
    return Reaction(
        perturbation.name, perturbation.title, perturbation.expected, len(values),
        mean, mean - half, mean + half,
        share_of([1.0 if c > 0 else 0.5 if c == 0 else 0.0 for c in changes]),
        preferred,
        _TESTS[perturbation.expected](mean, error, len(values) - 1),
        False,
    )  # fmt: skip


def _t_test(distance: float, error: float, df: int) -> float:
    """Return the one-sided p-value of a mean that is so far above what is expected."""
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / error, df))


#: How surprising a mean change is, where another is expected.
_TESTS: Mapping[Expected, Callable[[float, float, int], float]] = {
    "not higher": lambda mean, error, df: _t_test(mean - NEGLIGIBLE, error, df),
    # A score that does not fall: that it falls by what counts is refuted.
    "lower": lambda mean, error, df: _t_test(mean + NEGLIGIBLE, error, df),
    "same": lambda mean, error, df: _t_test(abs(mean) - SAME, error, df),
}


def _is_large(reaction: Reaction) -> bool:
    if reaction.expected == "same":
        return abs(reaction.change) > SAME
    return reaction.change > (NEGLIGIBLE if reaction.expected == "not higher" else -NEGLIGIBLE)
