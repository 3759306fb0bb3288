"""Which labels count as votes, which score a person, and which decide.

A label says what it is for (`Label.purpose`). Only votes are votes, one a person and pair; labels
on gold items, whose answers are known, say how reliable a person is; repeats say how consistent
they are, and count for nothing here; adjudications decide, beside the votes and never over them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from annotation.config import AggregationConfig
from plumbline.data.labels import CHOICES, Choice, Label
from plumbline.errors import DataError
from plumbline.runs.artifacts import read_json, write_json

GOLD_FILE = "gold.json"
"""Beside labels: the known answer of each gold item, by the pair's id."""


class CountedVote(NamedTuple):
    """One counted answer of one person on one pair."""

    pair_id: str
    person: str
    choice: Choice


@dataclass
class Ballot:
    """Labels by what they are for."""

    votes: dict[str, list[Label]] = field(default_factory=dict)
    """By pair, one a person: the latest."""
    decisions: dict[str, list[Label]] = field(default_factory=dict)
    """Adjudications by pair, one a person: the latest."""
    gold: list[Label] = field(default_factory=list)
    """Answers to gold items, one a person and item: the first, before anybody could learn it."""
    repeats: int = 0
    """Labels that only repeat a pair for the same person."""
    superseded: int = 0
    """Votes and adjudications in whose place the same person gave a later one."""


def person_of(label: Label) -> str:
    """Return who a label is by. The same name in another source is another person."""
    return f"{label.source}:{label.annotator}"


def sort_labels(labels: Sequence[Label]) -> Ballot:
    """Sort labels by what they are for; none is counted twice."""
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


def write_gold(folder: Path, answers: Mapping[str, Choice]) -> None:
    """Write the known answers of gold items beside labels."""
    write_json(folder / GOLD_FILE, dict(answers))


def read_gold(folder: Path) -> dict[str, Choice]:
    """Return the known answers of gold items; none where nobody wrote any."""
    path = folder / GOLD_FILE
    if not path.exists():
        return {}
    answers: dict[str, Choice] = read_json(path)
    for pair_id, answer in answers.items():
        if answer not in CHOICES:
            raise DataError(
                f"{path}: the known answer of {pair_id} is {answer!r}, which is none of "
                f"{', '.join(CHOICES)}."
            )
    return answers


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
            "not ISO 8601, so it cannot be told which of several labels is the later."
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
