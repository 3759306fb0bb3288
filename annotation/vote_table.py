"""Votes as a table of items, people and categories, of which most cells may be empty.

Shapes: V votes, I items, P people, K categories. Only the votes are stored, not the I x P cells:
thousands of people who each see a few of many items take no more room than their votes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plumbline.errors import DataError

Integers = NDArray[np.int64]


class Vote(NamedTuple):
    """One person's category for one item."""

    item: str
    person: str
    category: str


@dataclass(frozen=True)
class VoteTable:
    """Who put which item into which category; not everyone votes on everything."""

    items: tuple[str, ...]
    people: tuple[str, ...]
    categories: tuple[str, ...]
    item_of: Integers
    """The item of each vote, ``[V]``; votes are ordered by item, then by person."""
    person_of: Integers
    """The person of each vote, ``[V]``."""
    code_of: Integers
    """The category of each vote, ``[V]``."""

    @classmethod
    def of(
        cls,
        votes: Iterable[Vote],
        *,
        items: Sequence[str] = (),
        people: Sequence[str] = (),
        categories: Sequence[str] = (),
    ) -> VoteTable:
        """Make a table; names that are not given are those that occur, in natural order.

        Items and people without a vote may be named. Raises `DataError` where somebody votes twice
        on an item, or names none of the given categories.
        """
        all_votes = list(votes)
        rows = _numbered(items or dict.fromkeys(vote.item for vote in all_votes))
        columns = _numbered(people or in_natural_order({vote.person for vote in all_votes}))
        kinds = _numbered(categories or in_natural_order({vote.category for vote in all_votes}))
        cells: dict[tuple[int, int], str] = {}
        for vote in all_votes:
            if vote.category not in kinds:
                raise DataError(
                    f"{vote.person!r} put {vote.item!r} into {vote.category!r}, which is none of "
                    f"{', '.join(kinds)}."
                )
            cell = rows[vote.item], columns[vote.person]
            if cell in cells:
                raise DataError(
                    f"{vote.person!r} voted twice on {vote.item!r}: {cells[cell]!r} and "
                    f"{vote.category!r}. Agreement needs one vote per person and item; leave one "
                    "of them out."
                )
            cells[cell] = vote.category
        ordered = sorted(cells)
        return cls(
            tuple(rows),
            tuple(columns),
            tuple(kinds),
            np.array([item for item, _ in ordered], dtype=np.int64),
            np.array([person for _, person in ordered], dtype=np.int64),
            np.array([kinds[cells[cell]] for cell in ordered], dtype=np.int64),
        )

    @property
    def votes(self) -> int:
        """How many votes there are."""
        return len(self.code_of)

    @cached_property
    def counts(self) -> Integers:
        """How many people put each item into each category, ``[I, K]``."""
        counts = np.zeros((len(self.items), len(self.categories)), dtype=np.int64)
        np.add.at(counts, (self.item_of, self.code_of), 1)
        return counts

    @cached_property
    def votes_per_item(self) -> Integers:
        """How many people voted on each item, ``[I]``."""
        return np.bincount(self.item_of, minlength=len(self.items)).astype(np.int64)

    @cached_property
    def counts_by_person(self) -> Integers:
        """How many votes each person gave each category, ``[P, K]``."""
        counts = np.zeros((len(self.people), len(self.categories)), dtype=np.int64)
        np.add.at(counts, (self.person_of, self.code_of), 1)
        return counts

    @cached_property
    def majority_codes(self) -> Integers:
        """Each item's category with the most votes, ``[I]``; -1 where two or more share it."""
        return leading(self.counts)

    @cached_property
    def pairs_of_votes(self) -> tuple[Integers, Integers]:
        """The pairs of votes that share an item, as two lists of vote numbers.

        The first list has the person with the lower number. Only people who share an item have an
        entry, so thousands of people who do not meet cost nothing.
        """
        starts = np.concatenate([[0], np.cumsum(self.votes_per_item)])
        firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for size in np.unique(self.votes_per_item):
            if size < 2:
                continue
            begin = starts[:-1][self.votes_per_item == size]
            a, b = np.triu_indices(int(size), k=1)
            firsts.append((begin[:, None] + a[None, :]).ravel())
            seconds.append((begin[:, None] + b[None, :]).ravel())
        return np.concatenate(firsts), np.concatenate(seconds)

    def choices(self) -> dict[str, int]:
        """Return how many votes each category got."""
        return dict(zip(self.categories, map(int, self.counts.sum(axis=0)), strict=True))

    def with_order(self, order: Sequence[str]) -> VoteTable:
        """Return the same votes with these categories in this order; others become missing."""
        position = {category: number for number, category in enumerate(order)}
        recoded = np.array([position.get(kind, -1) for kind in self.categories], dtype=np.int64)
        codes = recoded[self.code_of] if self.votes else self.code_of
        kept = codes >= 0
        return VoteTable(
            self.items,
            self.people,
            tuple(order),
            self.item_of[kept],
            self.person_of[kept],
            codes[kept],
        )


def leading(counts: Integers) -> Integers:
    """Return the category with the largest count in each row, ``[N, K]`` to ``[N]``.

    It is -1 where two or more categories share the first place, and where all counts are zero.
    """
    if counts.shape[1] == 0:
        return np.full(len(counts), -1, dtype=np.int64)
    most = counts.max(axis=1)
    clear = (most > 0) & ((counts == most[:, None]).sum(axis=1) == 1)
    return np.where(clear, counts.argmax(axis=1), -1)


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return names sorted as people do: digits in them by their value."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]

    return sorted(names, key=lambda name: (key(name), name))


def look_alikes(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return names that differ in capitals or in how a letter is encoded: most likely one."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    return tuple(tuple(same) for same in alike.values() if len(same) > 1)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
