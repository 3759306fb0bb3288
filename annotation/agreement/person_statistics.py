"""Statistics of people by their own labels: consistency, gold accuracy, position bias, speed.

Every function takes the labels of one person, or of several together. Intervals are Wilson's, with
each label taken as independent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median

from annotation.aggregation.votes import person_of
from annotation.agreement.intervals import Estimate, Value, wilson
from plumbline.data.labels import Choice, Label


def self_consistency(labels: Sequence[Label]) -> Estimate:
    """Return the share of repeats in which a person chose the same as the first time.

    The first time is the same person's earliest vote on that pair. A repeat without one is left
    aside.
    """
    first: dict[tuple[str, str], Label] = {}
    repeats = []
    for label in sorted(labels, key=time_of):
        if label.purpose == "repeat":
            repeats.append(label)
        elif label.purpose in ("vote", "gold"):
            first.setdefault((person_of(label), label.pair_id), label)
    same = [
        first[key].choice == label.choice
        for label in repeats
        if (key := (person_of(label), label.pair_id)) in first
    ]
    nothing = f"none of {len(repeats)} repeats has a first label" if repeats else "no repeats"
    return wilson(sum(same), len(same), nothing=nothing)


def gold_accuracy(labels: Sequence[Label], answers: Mapping[str, Choice]) -> Estimate:
    """Return the share of gold items that were answered right.

    Of several labels of a person on a gold item the first counts: later ones may be learnt.
    """
    first: dict[tuple[str, str], Label] = {}
    for label in sorted(labels, key=time_of):
        if label.purpose == "gold":
            first.setdefault((person_of(label), label.pair_id), label)
    right = [
        label.choice == answers[label.pair_id]
        for label in first.values()
        if label.pair_id in answers
    ]
    nothing = (
        f"the answers to all {len(first)} gold items are unknown" if first else "no gold items"
    )
    return wilson(sum(right), len(right), nothing=nothing)


def position_bias(labels: Sequence[Label]) -> Estimate:
    """Return the share of the choices of A or B that went to the response shown first.

    One half means no bias, because the response shown first is drawn at random. Labels of a source
    that always shows the same response first (a file that does not say, for instance) are left
    aside: there a bias for the position cannot be separated from one for the response. So are
    adjudications, because these see the votes.
    """
    decided = [
        label for label in labels if label.choice in ("a", "b") and label.purpose != "adjudication"
    ]
    orders: dict[str, set[str]] = defaultdict(set)
    for label in decided:
        orders[label.source].add(label.shown_first)
    drawn = [label for label in decided if len(orders[label.source]) > 1]
    first = sum(label.choice == label.shown_first for label in drawn)
    nothing = "the same response was always shown first" if decided else "no label chose A or B"
    return wilson(first, len(drawn), nothing=nothing)


def median_seconds(labels: Sequence[Label]) -> Value:
    """Return the median time between two consecutive labels of one person, in seconds.

    Breaks are included, but hardly change the median.
    """
    times = sorted(time_of(label) for label in labels)
    if len(times) < 2:
        return Value(None, "fewer than two labels")
    if times[0] == times[-1]:
        return Value(None, "all labels have the same time")
    return Value(median((after - before).total_seconds() for before, after in pairwise(times)))


def time_of(label: Label) -> datetime:
    """Return when a label was given; a time without a zone is in UTC."""
    time = datetime.fromisoformat(label.created_at)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
