"""Agreement of label records: on the choice, on its strength, by aspect and by person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from annotation.aggregation.votes import person_of, sort_labels
from annotation.agreement import person_statistics
from annotation.agreement.intervals import Bootstrap, Estimate, Value
from annotation.agreement.measure import Agreement, Person, measure_agreement
from annotation.vote_table import Vote, VoteTable
from plumbline.data.labels import CHOICES, PURPOSES, Choice, Label
from plumbline.errors import DataError

#: From one end to the other. "Both are bad" lies nowhere between A and B.
ORDER = ("a", "tie", "b")


@dataclass(frozen=True)
class PersonSummary:
    """One person's labels, or everybody's together."""

    name: str
    source: str
    labels: int
    purposes: dict[str, int]
    agreement: Person | None
    """Agreement of their votes with others'; None for somebody without votes, and for everybody."""
    gold_accuracy: Estimate
    self_consistency: Estimate
    shown_first: Estimate
    """Share of their choices of A or B that went to the response shown first."""
    median_seconds: Value
    """The median time between two of their labels."""


@dataclass(frozen=True)
class LabelAgreement:
    """The agreement of a set of labels, and statistics of the people who gave them."""

    choice: Agreement
    strength: Agreement | None
    """On a scale from "A is much better" over the tie to "B is much better", where it was asked.
    Votes that name neither a strength nor a tie are missing in it."""
    aspects: dict[str, Agreement]
    people: tuple[PersonSummary, ...]
    everybody: PersonSummary
    purposes: dict[str, int]
    """Labels by purpose; only votes count for agreement."""
    superseded: int
    """Votes that the same person replaced by a later one."""
    gold_unknown: int
    """Labels on gold items whose answer is not known."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self) | {
            "people": [_person_as_dict(person) for person in self.people],
            "everybody": _person_as_dict(self.everybody),
        }


def measure_labels(
    labels: Sequence[Label],
    answers: Mapping[str, Choice] | None = None,
    order: Sequence[str] = ORDER,
    bootstrap: Bootstrap = Bootstrap(),  # noqa: B008 - it is frozen
) -> LabelAgreement:
    """Measure labels.

    ``answers`` are those of the gold items, by pair; ``order`` is that of the choices, for the
    ordinal coefficients.
    """
    if not labels:
        raise DataError("There are no labels, so there is no agreement to measure.")
    known_answers = answers or {}
    names = names_of(labels)
    ballot = sort_labels(labels)
    votes = [label for of_pair in ballot.votes.values() for label in of_pair]
    choice = measure_agreement(choice_table(votes, names), order, bootstrap)
    strength = strength_table(votes, names)
    agreement = {person.name: person for person in choice.people}

    by_person: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_person[names[person_of(label)]].append(label)
    gold = [label for label in labels if label.purpose == "gold"]
    return LabelAgreement(
        choice=choice,
        strength=measure_agreement(strength, strength.categories, bootstrap)
        if strength is not None
        else None,
        aspects={
            aspect: measure_agreement(table, None, bootstrap)
            for aspect, table in aspect_tables(votes, names).items()
        },
        people=tuple(
            _summary(name, by_person[name], agreement.get(name), known_answers)
            for name in sorted(by_person)
        ),
        everybody=_summary("everybody", labels, None, known_answers),
        purposes=_purposes(labels),
        superseded=ballot.superseded,
        gold_unknown=sum(label.pair_id not in known_answers for label in gold),
    )


def names_of(labels: Sequence[Label]) -> dict[str, str]:
    """Return each person's name, with the source where two sources have the same name."""
    people = {person_of(label): label.annotator for label in labels}
    bearers = Counter(people.values())
    return {
        person: name if bearers[name] == 1 else f"{name} ({person.partition(':')[0]})"
        for person, name in people.items()
    }


def choice_table(votes: Sequence[Label], names: Mapping[str, str]) -> VoteTable:
    """Return who chose what."""
    used = {label.choice for label in votes}
    return VoteTable.of(
        (Vote(label.pair_id, names[person_of(label)], label.choice) for label in votes),
        categories=[choice for choice in CHOICES if choice in used],
    )


def strength_table(votes: Sequence[Label], names: Mapping[str, str]) -> VoteTable | None:
    """Return who chose what by how much, or None where nobody was asked."""
    strengths = [label.strength for label in votes if label.strength and label.choice in ("a", "b")]
    if not strengths:
        return None
    steps = range(1, max(strengths) + 1)
    scale = [*(f"a by {n}" for n in reversed(steps)), "tie", *(f"b by {n}" for n in steps)]
    placed = [
        (label, "tie" if label.choice == "tie" else f"{label.choice} by {label.strength}")
        for label in votes
        if label.choice == "tie" or (label.choice in ("a", "b") and label.strength)
    ]
    return VoteTable.of(
        (Vote(label.pair_id, names[person_of(label)], place) for label, place in placed),
        categories=scale,
    )


def aspect_tables(votes: Sequence[Label], names: Mapping[str, str]) -> dict[str, VoteTable]:
    """Return who chose what on each aspect that anybody was asked about."""
    aspects = sorted({aspect for label in votes for aspect in label.aspects})
    return {
        aspect: VoteTable.of(
            Vote(label.pair_id, names[person_of(label)], label.aspects[aspect])
            for label in votes
            if label.aspects.get(aspect)
        )
        for aspect in aspects
    }


def _summary(
    name: str, labels: Sequence[Label], agreement: Person | None, answers: Mapping[str, Choice]
) -> PersonSummary:
    return PersonSummary(
        name=name,
        source=", ".join(sorted({label.source for label in labels})),
        labels=len(labels),
        purposes=_purposes(labels),
        agreement=agreement,
        gold_accuracy=person_statistics.gold_accuracy(labels, answers),
        self_consistency=person_statistics.self_consistency(labels),
        shown_first=person_statistics.position_bias(labels),
        median_seconds=person_statistics.median_seconds(labels)
        if len({person_of(label) for label in labels}) == 1
        else Value(None, "several people"),
    )


def _purposes(labels: Sequence[Label]) -> dict[str, int]:
    counts = Counter(label.purpose for label in labels)
    return {purpose: counts[purpose] for purpose in PURPOSES}


def _person_as_dict(person: PersonSummary) -> dict[str, Any]:
    seconds = person.median_seconds
    return asdict(person) | {"median_seconds": {"value": seconds.value, "reason": seconds.reason}}
