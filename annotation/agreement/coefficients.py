"""Coefficients of agreement: each as its library computes it, and as a function of sums.

The value that is reported comes from the library. For the bootstrap the same figure is written
once more as a function of sums over items, for all resamples at once: thousands of calls of the
libraries would take minutes.

Shapes: I items, K categories, R resamples.
"""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation.agreement.intervals import Floats, Value
from annotation.agreement.vote_table import MISSING, VoteTable

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Level = Literal["nominal", "ordinal"]
Weights = Literal["linear", "quadratic"]
NO_TWO_VOTES = "no item has two votes"


def percent_agreement(votes: VoteTable) -> Value:
    """Return the share of pairs of votes on the same item that are equal.

    Where everyone votes on everything, this is the mean over pairs of people; elsewhere it is
    that mean weighted by how many items they share.
    """
    return ratio(agreeing_pairs(votes))


def pair_agreement(votes: VoteTable, first: int, second: int) -> Value:
    """Return the share of the items that two people voted on and put into the same category."""
    a, b = shared(votes, first, second)
    if len(a) == 0:
        return Value(None, "no item has a vote of both")
    return Value(float((a == b).mean()))


def cohen_kappa(votes: VoteTable, first: int, second: int, weights: Weights | None = None) -> Value:
    """Return Cohen's kappa of two people (Cohen, 1960), by scikit-learn.

    With ``weights`` (Cohen, 1968) the categories are taken to stand in their order at equal steps.
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = shared(votes, first, second)
    if len(a) == 0:
        return Value(None, "no item has a vote of both")
    only = set(a) | set(b)
    if len(only) == 1:
        return Value(None, f"both chose only {votes.categories[only.pop()]!r}")
    kinds = np.arange(len(votes.categories))
    return Value(float(cohen_kappa_score(a, b, labels=kinds, weights=weights)))


class FleissItems(NamedTuple):
    """The items that Fleiss' kappa can use: those with one number of votes."""

    used: NDArray[np.bool_]
    """(I,)"""
    votes: int
    """How many votes each of them has; 0 where no item has two."""


def fleiss_items(votes: VoteTable) -> FleissItems:
    """Choose the items with the most frequent number of votes from 2 on; of two, the larger."""
    frequency = Counter(int(n) for n in votes.votes_per_item if n >= 2)
    if not frequency:
        return FleissItems(np.zeros(len(votes.items), dtype=bool), 0)
    number = max(frequency, key=lambda n: (frequency[n], n))
    return FleissItems(votes.votes_per_item == number, number)


def fleiss_kappa(votes: VoteTable) -> Value:
    """Return Fleiss' kappa (Fleiss, 1971) over `fleiss_items`, by statsmodels."""
    from statsmodels.stats.inter_rater import fleiss_kappa as by_statsmodels

    chosen = fleiss_items(votes)
    if chosen.votes == 0:
        return Value(None, NO_TWO_VOTES)
    counts = votes.counts[chosen.used]
    only = np.flatnonzero(counts.sum(axis=0))
    if len(only) == 1:
        return Value(None, f"every vote is {votes.categories[only[0]]!r}")
    return Value(float(by_statsmodels(counts)))


def krippendorff_alpha(votes: VoteTable, level: Level) -> Value:
    """Return Krippendorff's alpha, by the library of that name.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. Items with one vote say
    nothing about agreement and are left aside, as there. ``ordinal`` takes the categories in
    their order in the table.
    """
    import krippendorff

    pairable = votes.counts[votes.votes_per_item >= 2]
    if len(pairable) == 0:
        return Value(None, NO_TWO_VOTES)
    only = np.flatnonzero(pairable.sum(axis=0))
    if len(only) == 1:
        return Value(None, f"every vote on an item with two is {votes.categories[only[0]]!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # whatever it would only warn of must not become a figure
        return Value(float(krippendorff.alpha(value_counts=pairable, level_of_measurement=level)))


def shared(
    votes: VoteTable, first: int, second: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return both people's codes on the items that both voted on."""
    both = (votes.codes[:, first] != MISSING) & (votes.codes[:, second] != MISSING)
    return votes.codes[both, first], votes.codes[both, second]


def ratio(items: csr_array, nothing: str = NO_TWO_VOTES) -> Value:
    """Return the ratio of two sums over items, (I, 2)."""
    part, whole = np.asarray(items.sum(axis=0)).ravel()
    return Value(float(part / whole)) if whole > 0 else Value(None, nothing)


# What an item adds to the sums.


def agreeing_pairs(votes: VoteTable) -> csr_array:
    """Return (I, 2): pairs of equal votes on each item, and all pairs of votes on it."""
    from scipy.sparse import csr_array

    counts, total = votes.counts, votes.votes_per_item
    equal = (counts * (counts - 1)).sum(axis=1) / 2
    return csr_array(np.stack([equal, total * (total - 1) / 2], axis=1))


def confusion(votes: VoteTable, first: int, second: int) -> csr_array:
    """Return (I, K·K): a one where the two people's categories cross."""
    from scipy.sparse import csr_array

    k = len(votes.categories)
    a, b = votes.codes[:, first], votes.codes[:, second]
    rows = np.flatnonzero((a != MISSING) & (b != MISSING))
    cells = (np.ones(len(rows)), (rows, a[rows] * k + b[rows]))
    return csr_array(cells, shape=(len(votes.items), k * k))


def coincidences(votes: VoteTable) -> csr_array:
    """Return (I, K·K): each item's part in Krippendorff's matrix of coincidences."""
    from scipy.sparse import csr_array

    k, people = len(votes.categories), len(votes.people)
    share = 1 / np.maximum(votes.votes_per_item - 1, 1)
    rows, cells = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for first, second in itertools.permutations(range(people), 2):
        a, b = votes.codes[:, first], votes.codes[:, second]
        both = np.flatnonzero((a != MISSING) & (b != MISSING))
        rows.append(both)
        cells.append(a[both] * k + b[both])
    item = np.concatenate(rows)
    return csr_array((share[item], (item, np.concatenate(cells))), shape=(len(votes.items), k * k))


def fleiss_sums(votes: VoteTable) -> csr_array:
    """Return (I, K + 2): votes by category, share of agreeing pairs, and one; zeros if unused."""
    from scipy.sparse import csr_array

    chosen = fleiss_items(votes)
    counts, m = votes.counts * chosen.used[:, None], chosen.votes
    agreement = (counts * (counts - 1)).sum(axis=1) / max(m * (m - 1), 1)
    return csr_array(np.column_stack([counts, agreement, chosen.used]).astype(np.float64))


# Figures as functions of such sums, (R, S) to (R,).


def ratio_of(sums: Floats) -> Floats:
    """Return first over second sum."""
    return _divided(sums[:, 0], sums[:, 1])


def agreement_of(sums: Floats) -> Floats:
    """Return the share on the diagonal of confusion matrices, (R, K·K)."""
    table = _square(sums)
    return _divided(np.trace(table, axis1=1, axis2=2), table.sum(axis=(1, 2)))


def kappa_of(weights: Weights | None = None) -> Callable[[Floats], Floats]:
    """Return Cohen's kappa as a function of confusion matrices, (R, K·K)."""

    def kappa(sums: Floats) -> Floats:
        table = _square(sums)
        step = np.abs(np.subtract.outer(np.arange(table.shape[1]), np.arange(table.shape[1])))
        cost = step**2 if weights == "quadratic" else step if weights == "linear" else step > 0
        chance = _divided(
            table.sum(axis=2)[:, :, None] * table.sum(axis=1)[:, None, :],
            table.sum(axis=(1, 2))[:, None, None],
        )
        return 1 - _divided((cost * table).sum(axis=(1, 2)), (cost * chance).sum(axis=(1, 2)))

    return kappa


def alpha_of(level: Level) -> Callable[[Floats], Floats]:
    """Return Krippendorff's alpha as a function of coincidence matrices, (R, K·K)."""

    def alpha(sums: Floats) -> Floats:
        observed = _square(sums)
        n = observed.sum(axis=2)  # (R, K): pairable votes by category
        # By chance two different votes meet so often; equal ones are at no distance.
        chance = _divided(n[:, :, None] * n[:, None, :], (n.sum(axis=1) - 1)[:, None, None])
        k = np.arange(n.shape[1])
        if level == "nominal":
            distance = np.broadcast_to(k[:, None] != k[None, :], observed.shape).astype(np.float64)
        else:  # the votes between two categories, half of each included: a difference of midranks
            midrank = np.cumsum(n, axis=1) - n / 2
            distance = (midrank[:, :, None] - midrank[:, None, :]) ** 2
        return 1 - _divided(
            (distance * observed).sum(axis=(1, 2)), (distance * chance).sum(axis=(1, 2))
        )

    return alpha


def fleiss_of(sums: Floats) -> Floats:
    """Return Fleiss' kappa as a function of `fleiss_sums`, (R, K + 2)."""
    by_category, agreement, items = sums[:, :-2], sums[:, -2], sums[:, -1]
    observed = _divided(agreement, items)
    share = _divided(by_category, by_category.sum(axis=1)[:, None])
    chance = (share**2).sum(axis=1)
    return _divided(observed - chance, 1 - chance)


def _square(sums: Floats) -> Floats:
    k = round(sums.shape[1] ** 0.5)
    return sums.reshape(-1, k, k)


def _divided(part: Floats, whole: Floats) -> Floats:
    """Return part over whole, NaN where the whole is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 1e-12, part / whole, np.nan)
