"""Votes as a matrix: items in rows, people in columns, one category or nothing in each cell.

Shapes: I items, P people, K categories.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbline.errors import DataError

MISSING = -1
C = TypeVar("C", bound=Hashable)


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
    codes: NDArray[np.int64]
    """(I, P): the number of the category, or -1 where that person did not vote on that item."""

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

        People and items may be named who have no vote. Raises `DataError` where somebody votes
        twice on an item, or says what is none of the given categories.
        """
        found = list(votes)
        rows = _numbered(items or dict.fromkeys(vote.item for vote in found))
        columns = _numbered(people or in_natural_order({vote.person for vote in found}))
        kinds = _numbered(categories or in_natural_order({vote.category for vote in found}))
        codes = np.full((len(rows), len(columns)), MISSING, dtype=np.int64)
        for vote in found:
            if vote.category not in kinds:
                raise DataError(
                    f"{vote.person!r} put {vote.item!r} into {vote.category!r}, which is none of "
                    f"{', '.join(kinds)}."
                )
            row, column = rows[vote.item], columns[vote.person]
            if codes[row, column] != MISSING:
                raise DataError(
                    f"{vote.person!r} voted twice on {vote.item!r}: "
                    f"{list(kinds)[codes[row, column]]!r} and {vote.category!r}. Agreement between "
                    "people needs one vote each; leave one of them out."
                )
            codes[row, column] = kinds[vote.category]
        return cls(tuple(rows), tuple(columns), tuple(kinds), codes)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(I, K): how many put each item into each category."""
        counts = np.zeros((len(self.items), len(self.categories)), dtype=np.int64)
        rows, columns = np.nonzero(self.codes != MISSING)
        np.add.at(counts, (rows, self.codes[rows, columns]), 1)
        return counts

    @cached_property
    def votes_per_item(self) -> NDArray[np.int64]:
        """(I,): how many voted on each item."""
        votes: NDArray[np.int64] = (self.codes != MISSING).sum(axis=1)
        return votes

    def choices(self) -> dict[str, int]:
        """Return how many votes each category got."""
        return dict(zip(self.categories, map(int, self.counts.sum(axis=0)), strict=True))

    def majorities(self) -> list[str | None]:
        """Return each item's category with the most votes; None where there is no such one."""
        return [
            majority_of([self.categories[code] for code in row if code != MISSING])
            for row in self.codes
        ]

    def with_order(self, order: Sequence[str]) -> VoteTable:
        """Return the same votes with these categories in this order; others become missing."""
        place = {category: number for number, category in enumerate(order)}
        # One more entry at the end, which the code of a missing vote, -1, finds.
        recoded = np.array([place.get(kind, MISSING) for kind in self.categories] + [MISSING])
        return VoteTable(self.items, self.people, tuple(order), recoded[self.codes])


def majority_of(votes: Iterable[C]) -> C | None:
    """Return the vote that is more frequent than any other (the plurality).

    None where two or more share the first place, and where nobody voted.
    """
    first = Counter(votes).most_common(2)
    if not first or (len(first) == 2 and first[0][1] == first[1][1]):
        return None
    return first[0][0]


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Return names sorted as people do: digits in them by their value."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name)
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]

    return sorted(names, key=lambda name: (key(name), name))


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
