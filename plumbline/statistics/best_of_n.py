"""Best of n: what selecting by one score does to another, without drawing any subset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from plumbline.statistics.crossed_effects import Floats
from plumbline.statistics.frontier import best_of_n_kl


class BestOf(NamedTuple):
    """The best of n by a ranking score, for M values of n."""

    sizes: list[int]
    kl: Floats
    """[M] KL to the policy, nats: log n - (n - 1) / n; an upper bound where responses repeat."""
    ranking: Floats
    """[M] mean ranking score of the selected responses."""
    judging: Floats
    """[M] mean judging score of the same responses."""


def best_of(ranking: Floats, judging: Floats, sizes: Sequence[int]) -> BestOf:
    """Return the mean scores of the best of n responses, over all subsets of n responses.

    Args:
        ranking: the score that selects, [P, N]: N responses to each of P prompts.
        judging: the score of what was selected, [P, N].
        sizes: each n, from 1 to N.

    The k-th worst of N responses is the best of n in C(k - 1, n - 1) of C(N, n) subsets, so the
    mean over subsets is exact and no subset is drawn.
    """
    count = ranking.shape[1]
    order = np.argsort(ranking, axis=1, kind="stable")
    ranking_means, judging_means = (
        np.take_along_axis(scores, order, axis=1).mean(axis=0) for scores in (ranking, judging)
    )
    weights = np.array([_weights(count, size) for size in sizes])
    return BestOf(
        list(sizes),
        np.array([best_of_n_kl(size) for size in sizes]),
        weights @ ranking_means,
        weights @ judging_means,
    )


def _weights(count: int, size: int) -> list[float]:
    if not 1 <= size <= count:
        raise ValueError(f"the best of {size} cannot be selected from {count} responses")
    return [math.comb(rank, size - 1) / math.comb(count, size) for rank in range(count)]
