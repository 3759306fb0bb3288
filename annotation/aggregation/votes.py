"""Which labels count as votes, which measure a person, and which decide.

Each label has a purpose (`Label.purpose`). Votes count as votes, one per person and pair. Labels
on gold items, whose answers are known, measure how reliable a person is. Repeats measure how
consistent a person is, and do not count here. Adjudications decide; the votes stay beside them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from annotation.aggregation.counted_vote import CountedVote
from plumbline.data.labels import CHOICES, Choice, Label
from plumbline.errors import DataError

if TYPE_CHECKING:
    from annotation.aggregation.config import AggregationConfig


@dataclass
class Ballot:
    """Labels by their purpose."""

    votes: dict[str, list[Label]] = field(default_factory=dict)
    """Votes by pair: of each person the latest."""
    decisions: dict[str, list[Label]] = field(default_factory=dict)
    """Adjudications by pair: of each person the latest."""
    gold: list[Label] = field(default_factory=list)
    """Answers to gold items: of each person and item the first, which nobody could learn."""
    repeats: int = 0
    """How many labels repeat a pair for the same person."""
    superseded: int = 0
    """How many votes and adjudications the same person replaced by a later one."""


def person_of(label: Label) -> str:
    """Return who a label is by. The same name in another source is another person."""
    return f"{label.source}:{label.annotator}"


def sort_labels(labels: Sequence[Label]) -> Ballot:
    """Sort labels by their purpose; none is counted twice."""
    ballot = Ballot(repeats=sum(label.purpose == "repeat" for label in labels))
    latest: dict[str, dict[tuple[str, str], Label]] = {"vote": {}, "adjudication": {}}
    first: dict[tuple[str, str], Label] = {}
    for label in labels:
        key = (label.pair_id, person_of(label))
        if label.purpose == "gold":
            first[key] = _earlier(first[key], label) if key in first else label
        elif label.purpose in latest:
            before = latest[label.purpose].get(key)
            ballot.superseded += before is not None
            latest[label.purpose][key] = label if before is None else _later(before, label)
    ballot.votes = _by_pair(latest["vote"].values())
    ballot.decisions = _by_pair(latest["adjudication"].values())
    ballot.gold = list(first.values())
    return ballot


def counted(choice: Choice, config: AggregationConfig) -> Choice | None:
    """Return what a choice counts as, or None where it is an abstention."""
    if choice == "both_bad" and config.both_bad != "outcome":
        return counted("tie", config) if config.both_bad == "tie" else None
    if choice == "tie" and config.ties == "abstain":
        return None
    return choice


def counted_votes(labels: Iterable[Label], config: AggregationConfig) -> list[CountedVote]:
    """Return the votes that count among labels, abstentions left out."""
    return [
        CountedVote(label.pair_id, person_of(label), choice)
        for label in labels
        if (choice := counted(label.choice, config)) is not None
    ]


def tally(labels: Iterable[Label]) -> dict[Choice, int]:
    """Return how often each choice was made, abstentions included."""
    counts = Counter(label.choice for label in labels)
    return {choice: counts[choice] for choice in CHOICES}


def plurality(choices: Iterable[Choice]) -> Choice | None:
    """Return the choice made more often than every other, or None where there is none."""
    leading = Counter(choices).most_common(2)
    if not leading or (len(leading) == 2 and leading[0][1] == leading[1][1]):
        return None
    return leading[0][0]


def _by_pair(labels: Iterable[Label]) -> dict[str, list[Label]]:
    pairs: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        pairs[label.pair_id].append(label)
    return dict(pairs)


def _later(before: Label, label: Label) -> Label:
    return label if _when(label) >= _when(before) else before


def _earlier(before: Label, label: Label) -> Label:
    return label if _when(label) < _when(before) else before


def _when(label: Label) -> datetime:
    """Return when a label was given; a time without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(label.created_at)
    except ValueError:
        raise DataError(
            f"Label by {label.annotator!r} on {label.pair_id}: its time {label.created_at!r} is "
            "not ISO 8601, so the later of two labels cannot be found. Write times as "
            "2026-01-31T12:00:00+00:00."
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
