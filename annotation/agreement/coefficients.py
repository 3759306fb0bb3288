"""Coefficients of agreement as functions of sums over items.

Each coefficient is written once, as a function of sums. The value is that function of the sums over
all items, and the bootstrap's values are the same function of the sums over each resample. Fleiss'
kappa and Krippendorff's alpha are also computed by the libraries of these names, and it is their
value that is reported. Tests compare all of them with the libraries.

Shapes: I items, P people, K categories, R resamples, N pairs of people or people, S sums.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation.agreement.intervals import Floats, Value
from annotation.vote_table import Integers, VoteTable, leading

if TYPE_CHECKING:
    from scipy.sparse import csc_array

Level = Literal["nominal", "ordinal"]
Weights = Literal["linear", "quadratic"]
NO_TWO_VOTES = "no item has two votes"


# Values by libraries.


class FleissItems(NamedTuple):
    """The items that Fleiss' kappa can use: those with the same number of votes."""

    used: NDArray[np.bool_]
    """``[I]``"""
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
    nothing about agreement and are left aside, as there. ``ordinal`` uses the order of the
    categories in the table.
    """
    import krippendorff

    pairable = votes.counts[votes.votes_per_item >= 2]
    if len(pairable) == 0:
        return Value(None, NO_TWO_VOTES)
    only = np.flatnonzero(pairable.sum(axis=0))
    if len(only) == 1:
        return Value(None, f"every vote on an item with two is {votes.categories[only[0]]!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what it only warns about must not become a number
        return Value(float(krippendorff.alpha(value_counts=pairable, level_of_measurement=level)))


def percent_agreement(votes: VoteTable) -> Value:
    """Return the share of pairs of votes on the same item that are equal.

    Where everyone votes on everything, this is the mean over pairs of people. Elsewhere it is that
    mean weighted by how many items they share.
    """
    equal, total = np.asarray(agreeing_pairs(votes).sum(axis=0)).ravel()
    return Value(float(equal / total)) if total > 0 else Value(None, NO_TWO_VOTES)


# What each item adds to the sums.


def agreeing_pairs(votes: VoteTable) -> csc_array:
    """Return the pairs of equal votes on each item, and all pairs of votes on it, ``[I, 2]``."""
    from scipy.sparse import csc_array

    counts, total = votes.counts, votes.votes_per_item
    equal = (counts * (counts - 1)).sum(axis=1) / 2
    return csc_array(np.stack([equal, total * (total - 1) / 2], axis=1))


#: More pairs of people who share an item than this are not listed: each takes about 0.5 KB.
MOST_PAIRS = 500_000


class PeopleWhoMeet(NamedTuple):
    """The pairs of people who share an item, and what they said there."""

    first: Integers
    """``[N]``"""
    second: Integers
    """``[N]``, larger than the first"""
    confusion: csc_array
    """``[I, N K K]``: for each pair of people a one where their categories cross."""
    tables: Floats
    """The sums of these over all items, ``[N, K, K]``."""


def too_many_meet(votes: VoteTable) -> bool:
    """Return whether so many pairs of people share items that a figure of each serves nobody."""
    people, of_item = len(votes.people), votes.votes_per_item.astype(np.int64)
    most = min(people * (people - 1) // 2, int((of_item * (of_item - 1) // 2).sum()))
    return most > MOST_PAIRS


def people_who_meet(votes: VoteTable) -> PeopleWhoMeet:
    """Return the pairs of people who share an item; none where these are too many.

    The others cost nothing.
    """
    from scipy.sparse import csc_array

    k, people = len(votes.categories), len(votes.people)
    nobody = np.zeros(0, dtype=np.int64)
    a, b = (nobody, nobody) if too_many_meet(votes) else votes.pairs_of_votes
    key = votes.person_of[a] * people + votes.person_of[b]
    pairs, number = np.unique(key, return_inverse=True)
    cell = votes.code_of[a] * k + votes.code_of[b]
    shape = (len(votes.items), len(pairs) * k * k)
    ones = np.ones(len(a))
    confusion = csc_array((ones, (votes.item_of[a], number * k * k + cell)), shape=shape)
    tables = np.asarray(confusion.sum(axis=0), dtype=np.float64).reshape(len(pairs), k, k)
    return PeopleWhoMeet(pairs // max(people, 1), pairs % max(people, 1), confusion, tables)


def coincidences(votes: VoteTable) -> csc_array:
    """Return each item's part in Krippendorff's matrix of coincidences, ``[I, K K]``.

    With n_c votes for category c among m on an item, the cell (c, k) is n_c (n_k - [c = k]) /
    (m - 1).
    """
    from scipy.sparse import csc_array

    counts = votes.counts.astype(np.float64)
    share = 1 / np.maximum(votes.votes_per_item - 1, 1)
    crossed = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    crossed[:, diagonal, diagonal] -= counts
    return csc_array((crossed * share[:, None, None]).reshape(len(counts), counts.shape[1] ** 2))


def fleiss_sums(votes: VoteTable) -> csc_array:
    """Return votes by category, the share of agreeing pairs, and one, ``[I, K + 2]``.

    All are zero for the items that Fleiss' kappa does not use.
    """
    from scipy.sparse import csc_array

    chosen = fleiss_items(votes)
    counts, m = votes.counts * chosen.used[:, None], chosen.votes
    agreement = (counts * (counts - 1)).sum(axis=1) / max(m * (m - 1), 1)
    return csc_array(np.column_stack([counts, agreement, chosen.used]).astype(np.float64))


def with_others(votes: VoteTable) -> csc_array:
    """Return for each person how many others said the same, and how many voted, ``[I, 2 P]``."""
    same = votes.counts[votes.item_of, votes.code_of] - 1
    others = votes.votes_per_item[votes.item_of] - 1
    return _by_person(votes, same, others)


def with_majority(votes: VoteTable) -> csc_array:
    """Return for each person whether they said what most others said, ``[I, 2 P]``.

    The second column of a person says whether most of the others agree at all. The person's own
    vote is left out of the majority, which it would otherwise help to make.
    """
    others = votes.counts[votes.item_of].copy()
    others[np.arange(votes.votes), votes.code_of] -= 1
    majority = leading(others)
    clear = majority >= 0
    return _by_person(votes, clear & (majority == votes.code_of), clear)


def _by_person(
    votes: VoteTable, part: NDArray[np.generic], whole: NDArray[np.generic]
) -> csc_array:
    """Return two numbers per vote as two columns per person, ``[I, 2 P]``."""
    from scipy.sparse import csc_array

    rows = np.concatenate([votes.item_of, votes.item_of])
    columns = np.concatenate([2 * votes.person_of, 2 * votes.person_of + 1])
    numbers = np.concatenate([part, whole]).astype(np.float64)
    return csc_array((numbers, (rows, columns)), shape=(len(votes.items), 2 * len(votes.people)))


# Coefficients as functions of such sums, [R, N, S] to [R, N].


def ratio_of(sums: Floats) -> Floats:
    """Return the first sum divided by the second."""
    return _divided(sums[..., 0], sums[..., 1])


def agreement_of(sums: Floats) -> Floats:
    """Return the share on the diagonal of confusion matrices, ``[R, N, K K]``."""
    table = _square(sums)
    return _divided(np.trace(table, axis1=-2, axis2=-1), table.sum(axis=(-2, -1)))


def kappa_of(weights: Weights | None = None) -> Callable[[Floats], Floats]:
    """Return Cohen's kappa (Cohen, 1960) as a function of confusion matrices, ``[R, N, K K]``.

    With ``weights`` (Cohen, 1968), the categories have equal distances in their order.
    """

    def kappa(sums: Floats) -> Floats:
        table = _square(sums)
        step = np.abs(np.subtract.outer(np.arange(table.shape[-1]), np.arange(table.shape[-1])))
        cost = step**2 if weights == "quadratic" else step if weights == "linear" else step > 0
        chance = _divided(
            table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :],
            table.sum(axis=(-2, -1))[..., None, None],
        )
        return 1 - _divided((cost * table).sum(axis=(-2, -1)), (cost * chance).sum(axis=(-2, -1)))

    return kappa


def alpha_of(level: Level) -> Callable[[Floats], Floats]:
    """Return Krippendorff's alpha as a function of coincidence matrices, ``[R, N, K K]``."""

    def alpha(sums: Floats) -> Floats:
        observed = _square(sums)
        n = observed.sum(axis=-1)  # [R, N, K]: pairable votes by category
        # By chance, two different votes meet this often; equal votes have no distance.
        chance = _divided(n[..., :, None] * n[..., None, :], (n.sum(axis=-1) - 1)[..., None, None])
        k = np.arange(n.shape[-1])
        if level == "nominal":
            distance = np.broadcast_to(k[:, None] != k[None, :], observed.shape).astype(np.float64)
        else:  # the votes between two categories, half of each included: a difference of midranks
            midrank = np.cumsum(n, axis=-1) - n / 2
            distance = (midrank[..., :, None] - midrank[..., None, :]) ** 2
        return 1 - _divided(
            (distance * observed).sum(axis=(-2, -1)), (distance * chance).sum(axis=(-2, -1))
        )

    return alpha


def fleiss_of(sums: Floats) -> Floats:
    """Return Fleiss' kappa as a function of `fleiss_sums`, ``[R, N, K + 2]``."""
    by_category, agreement, items = sums[..., :-2], sums[..., -2], sums[..., -1]
    observed = _divided(agreement, items)
    share = _divided(by_category, by_category.sum(axis=-1)[..., None])
    chance = (share**2).sum(axis=-1)
    return _divided(observed - chance, 1 - chance)


def _square(sums: Floats) -> Floats:
    k = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], k, k)


def _divided(part: Floats, whole: Floats) -> Floats:
    """Return part over whole, NaN where the whole is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 1e-12, part / whole, np.nan)
