"""The pairs on which votes differ most, with the votes and their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation.aggregation.votes import person_of, sort_labels
from plumbline.data.labels import Label
from plumbline.data.records import Message, Row
from plumbline.errors import DataError


@dataclass(frozen=True)
class Dispute:
    """A pair, and the votes on it."""

    pair_id: str
    prompt: Sequence[Message]
    a: str
    b: str
    votes: tuple[tuple[str, Label], ...]
    """Names and votes."""
    decisions: tuple[tuple[str, Label], ...]
    """Names and adjudications."""
    disagreement: float
    """Share of the pairs of votes that differ."""

    @property
    def flags(self) -> list[str]:
        """The flags that anybody set."""
        return sorted({flag for _, label in (*self.votes, *self.decisions) for flag in label.flags})


def most_disputed(
    labels: Sequence[Label], rows: Sequence[Row], names: Mapping[str, str], at_most: int
) -> list[Dispute]:
    """Return the most disputed pairs, without those on which no two votes differ.

    Pairs with a larger share of differing votes come first, then those with more votes, then those
    with stronger preferences. Raises `DataError` where a vote is on a pair that is not among
    ``rows``.
    """
    by_id = {row["pair_id"]: row for row in rows}
    ballot = sort_labels(labels)
    unknown = [pair_id for pair_id in ballot.votes if pair_id not in by_id]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(ballot.votes)} voted pairs are not among the {len(rows)} "
            f"pairs given, such as {unknown[0]!r}. Give the pairs that were labelled."
        )

    def rank(pair_id: str) -> tuple[float, int, float, str]:
        votes = ballot.votes[pair_id]
        strength = sum(label.strength or 0 for label in votes) / len(votes)
        return -disagreement(votes), -len(votes), -strength, pair_id

    def with_names(labels: Sequence[Label]) -> tuple[tuple[str, Label], ...]:
        named = ((names[person_of(label)], label) for label in labels)
        return tuple(sorted(named, key=lambda entry: entry[0]))

    disputed = [pair_id for pair_id, votes in ballot.votes.items() if disagreement(votes) > 0]
    return [
        Dispute(
            pair_id=pair_id,
            prompt=by_id[pair_id]["prompt"],
            a=by_id[pair_id]["a"][-1]["content"],
            b=by_id[pair_id]["b"][-1]["content"],
            votes=with_names(ballot.votes[pair_id]),
            decisions=with_names(ballot.decisions.get(pair_id, [])),
            disagreement=disagreement(ballot.votes[pair_id]),
        )
        for pair_id in sorted(disputed, key=rank)[:at_most]
    ]


def disagreement(votes: Sequence[Label]) -> float:
    """Return the share of the pairs of votes that differ; 0 where there are no two votes."""
    n = len(votes)
    if n < 2:
        return 0.0
    equal = sum(count * (count - 1) for count in Counter(label.choice for label in votes).values())
    return 1 - equal / (n * (n - 1))
