"""Ranking many policies by Bradley-Terry (1952), a tie counting as half a win for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.sparse.csgraph import connected_components

from evaluation.statistics.crossed import Floats, check_confidence, checked_pair, spread
from evaluation.statistics.wins import head_to_head
from plumbline.errors import DataError

#: Half a win and half a loss between any two methods, beside a comparison for every prompt. Keeps
#: the strength of a method that won everything finite; with 100 prompts it moves a win rate of 90 %
#: by 0.4 points.
RANKING_PRIOR = 0.5


class Ranked(NamedTuple):
    """A method's strength in log odds (the mean over methods is 0), with its interval."""

    name: str
    strength: float
    low: float
    high: float


def bradley_terry(wins: ArrayLike, prior: float = 0.0) -> Floats:
    """Return strengths (K,), log odds with mean 0, by maximum likelihood.

    ``wins`` (K, K): how often each row won against each column, a tie adding 1/2 to both; the
    diagonal is ignored. The chance that i beats j is the logistic function of the difference of
    their strengths. The maximum exists only where every method is reached from every other along
    wins (Ford, 1957); ``prior`` wins each way between any two methods ensure that.
    """
    counts = np.array(wins, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or len(counts) < 1:
        raise DataError(f"wins have shape {counts.shape}; give a row and a column for each method.")
    np.fill_diagonal(counts, 0.0)
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise DataError("wins must be finite numbers from 0.")
    if not (prior >= 0 and math.isfinite(prior)):
        raise DataError(f"the prior is {prior}; it must be a number of wins from 0.")
    counts += prior * (1 - np.eye(len(counts)))
    _check_connected(counts)
    return _strengths(counts)


def ranking(
    scores: Mapping[str, ArrayLike], confidence: float = 0.95, prior: float = RANKING_PRIOR
) -> list[Ranked]:
    """Return methods from the strongest to the weakest, each with an interval.

    ``scores`` holds for each method its scores (S, P) on the same prompts; every seed of a method
    meets every seed of another, and each pair of methods weighs as much as P comparisons, however
    many seeds they have. Intervals take prompts and training seeds as random: each prompt's and
    each seed's influence on the strengths (the sandwich of the Bradley-Terry score) goes through
    the same variance components as ``contrast``. The intervals are of strengths relative to the
    mean of these methods, so two that overlap may still differ: compare two by ``win_rate``.
    """
    check_confidence(confidence)
    names = list(scores)
    if len(names) < 2:
        raise DataError(f"there are {len(names)} methods; a ranking needs two at least.")
    size = len(names)
    arrays = [checked_pair(scores[name], scores[names[0]])[0] for name in names]
    prompts = arrays[0].shape[1]
    rates = np.full((size, size), 0.5)
    by_prompt = np.zeros((prompts, size))
    by_seed = [np.zeros((*array.shape, size)) for array in arrays]
    for i, j in combinations(range(size), 2):
        points = head_to_head(arrays[i], arrays[j])
        rates[i, j] = points.mean()
        rates[j, i] = 1 - rates[i, j]
        gain = points - rates[i, j]
        for values, kept in (
            (by_prompt, gain.mean(axis=(0, 1))),
            (by_seed[i], gain.mean(axis=1)),
            (by_seed[j], gain.mean(axis=0)),
        ):
            values[..., i] += kept
            values[..., j] -= kept
    strengths = bradley_terry(prompts * rates, prior)
    chance = special.expit(strengths[:, None] - strengths[None])
    weights = (prompts + 2 * prior) * chance * (1 - chance) * (1 - np.eye(size))
    # The information matrix of the likelihood; strengths are known up to a constant only.
    inverse = prompts * np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights, hermitian=True)
    found = spread(by_prompt @ inverse, [values @ inverse for values in by_seed])
    half = found.half_width(confidence)
    ranked = [
        Ranked(name, float(middle), float(middle - width), float(middle + width))
        for name, middle, width in zip(names, strengths, half, strict=True)
    ]
    return sorted(ranked, key=lambda one: -one.strength)


def _check_connected(counts: Floats) -> None:
    """Refuse wins from which no finite strengths follow."""
    groups, which = connected_components(counts > 0, directed=True, connection="strong")
    if groups == 1:
        return
    lists = [[int(i) for i in np.flatnonzero(which == group)] for group in range(groups)]
    raise DataError(
        f"these wins set no finite strengths: methods (by number) fall into the groups {lists}, "
        "and between any two of them wins go one way only, or there are none. Compare across the "
        "groups, or give a small prior, such as 0.5 wins each way."
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
            tried = strengths + length * step
            gaps = tried[:, None] - tried[None]
            found = -float((counts * np.logaddexp(0.0, -gaps)).sum())
            if found >= value:
                break
            length /= 2
        strengths, value = tried - tried.mean(), found
        if float(np.abs(length * step).max()) < 1e-11:
            break
    return strengths
