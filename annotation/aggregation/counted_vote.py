"""One vote as the aggregation methods count it."""

from __future__ import annotations

from typing import NamedTuple

from plumbline.data.labels import Choice


class CountedVote(NamedTuple):
    """One counted answer of one person on one pair."""

    pair_id: str
    person: str
    choice: Choice
