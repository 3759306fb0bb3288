"""Ranking of policies by Bradley and Terry (1952); a tie counts as half a win for each side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.sparse.csgraph import connected_components

from plumbline.errors import DataError
from plumbline.statistics.crossed_effects import (
    Floats,
    check_confidence,
    paired_score_matrices,
    variance_of_mean,
)
from plumbline.statistics.win_rates import head_to_head

#: Half a win and half a loss between any two methods, beside one comparison per prompt. It keeps
#: the strength of a method that won everything finite; with 100 prompts it moves a win rate of 90 %
#: by 0.4 percentage points.
RANKING_PRIOR = 0.5


class Ranked(NamedTuple):
    """A method's strength in log odds (the mean over methods is 0), with its interval."""

    name: str
    strength: float
    low: float
    high: float


def bradley_terry(wins: ArrayLike, prior: float = 0.0) -> Floats:
    """Return strengths [K], log odds with mean 0, by maximum likelihood.

    ``wins`` [K, K]: how often each row won against each column; a tie adds 1/2 to both. The
    diagonal is ignored. The chance that i beats j is the logistic function of the difference of
    their strengths. The maximum exists only where a chain of wins leads from every method to every
    other (Ford, 1957); ``prior`` wins each way between any two methods ensure that.
    """
    counts = np.array(wins, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 1:
        raise DataError(f"wins have shape {counts.shape}; give one row and one column per method.")
    np.fill_diagonal(counts, 0.0)
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise DataError("wins must be finite numbers, 0 or more.")
    if not (prior >= 0 and math.isfinite(prior)):
        raise DataError(f"the prior is {prior}; it must be a number of wins, 0 or more.")
    counts += prior * (1 - np.eye(len(counts)))
    _check_connected(counts)
    return _strengths(counts)


def ranking(
    scores: Mapping[str, ArrayLike], confidence: float = 0.95, prior: float = RANKING_PRIOR
) -> list[Ranked]:
    """Return the methods from the strongest to the weakest, each with an interval.

    ``scores``: for each method its scores [S, P] on the same prompts. Every seed of a method meets
    every seed of another, and each pair of methods weighs as much as P comparisons, for any
    number of seeds. Intervals treat prompts and training seeds as random: the influence of each
    prompt and each seed on the strengths (the sandwich of the Bradley-Terry score) goes through
    the same variance components as ``contrast``. Strengths are relative to the mean of these
    methods, so two intervals that overlap do not show that two methods are equal: compare two
    methods by ``win_rate``.
    """
    check_confidence(confidence)
    names = list(scores)
    if len(names) < 2:
        raise DataError(f"there are {len(names)} methods; a ranking needs at least two.")
    size = len(names)
    arrays = [paired_score_matrices(scores[name], scores[names[0]])[0] for name in names]
    prompts = arrays[0].shape[1]
    rates = np.full((size, size), 0.5)
    by_prompt = np.zeros((prompts, size))
    by_seed = [np.zeros((*array.shape, size)) for array in arrays]
    for i, j in combinations(range(size), 2):
        win_scores = head_to_head(arrays[i], arrays[j])
        rates[i, j] = win_scores.mean()
        rates[j, i] = 1 - rates[i, j]
        gain = win_scores - rates[i, j]
        for values, mean_gains in (
            (by_prompt, gain.mean(axis=(0, 1))),
            (by_seed[i], gain.mean(axis=1)),
            (by_seed[j], gain.mean(axis=0)),
        ):
            values[..., i] += mean_gains
            values[..., j] -= mean_gains
    strengths = bradley_terry(prompts * rates, prior)
    chance = special.expit(strengths[:, None] - strengths[None])
    weights = (prompts + 2 * prior) * chance * (1 - chance) * (1 - np.eye(size))
    # The information matrix of the likelihood; strengths are known up to a constant only.
    inverse = prompts * np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights, hermitian=True)
    variance = variance_of_mean(by_prompt @ inverse, [values @ inverse for values in by_seed])
    half = variance.half_width(confidence)
    ranked = [
        Ranked(name, float(middle), float(middle - width), float(middle + width))
        for name, middle, width in zip(names, strengths, half, strict=True)
    ]
    return sorted(ranked, key=lambda row: -row.strength)


def _check_connected(counts: Floats) -> None:
    """Raise `DataError` where no finite strengths follow from the wins."""
    groups, group_of = connected_components(counts > 0, directed=True, connection="strong")
    if groups == 1:
        return
    lists = [[int(i) for i in np.flatnonzero(group_of == group)] for group in range(groups)]
    raise DataError(
        f"no finite strengths follow from these wins: methods (by number) fall into the groups "
        f"{lists}, and between any two groups wins go one way only, or there are none. Add "
        "comparisons between the groups, or a small prior, such as 0.5 wins each way."
    )


def _strengths(counts: Floats) -> Floats:
    """Return the maximum of the Bradley-Terry likelihood by Newton's method with halved steps."""
    size = len(counts)
    games, won = counts + counts.T, counts.sum(axis=1)
    strengths = np.zeros(size)
    value = -math.inf
    for _ in range(200):
        difference = strengths[:, None] - strengths[None]
        chance = special.expit(difference)
        slope = won - (games * chance).sum(axis=1)
        weights = games * chance * (1 - chance)
        information = np.diag(weights.sum(axis=1)) - weights
        # Adding the constant direction makes the matrix invertible, and leaves the step alone.
        step = np.linalg.solve(information + weights.mean() + 1e-300, slope)
        length = 1.0
        while length > 1e-10:
            candidate = strengths + length * step
            gaps = candidate[:, None] - candidate[None]
            new_value = -float((counts * np.logaddexp(0.0, -gaps)).sum())
            if new_value >= value:
                break
            length /= 2
        strengths, value = candidate - candidate.mean(), new_value
        if float(np.abs(length * step).max()) < 1e-11:
            break
    return strengths
