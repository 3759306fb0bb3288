"""How good answers are so far: gold items, repeats and agreement, in all and by person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation.aggregation.votes import person_of, sort_labels
from annotation.agreement import coefficients, person_statistics
from annotation.agreement.intervals import Bootstrap, Estimate, Figure, Key, Sums
from annotation.agreement.labels import choice_table
from annotation.agreement.measure import with_others
from annotation.agreement.vote_table import VoteTable
from plumbline.data.labels import Choice, Label

_ALL, _ALPHA = "agreement", "alpha"


@dataclass(frozen=True)
class Quality:
    """How good somebody's answers are, or everybody's together."""

    votes: int
    gold_accuracy: Estimate
    self_consistency: Estimate
    agreement: Estimate
    """Of a person: with the others' votes on the same pairs. Of everybody: of every two votes."""


@dataclass(frozen=True)
class CampaignQuality:
    """How good a campaign's answers are."""

    everybody: Quality
    alpha: Estimate
    """Krippendorff's alpha, nominal."""
    people: Mapping[str, Quality]
    """By the annotator of their labels."""


NO_LABELS = Quality(
    0,
    Estimate(None, reason="no gold items"),
    Estimate(None, reason="no repeats"),
    Estimate(None, reason="no votes"),
)


def measure_quality(
    labels: Sequence[Label], answers: Mapping[str, Choice], resamples: int = 200
) -> CampaignQuality:
    """Measure labels of one campaign; ``answers`` are those of its gold items, by pair.

    The figures are those of the agreement page without the ones about every two people, whose
    number grows with the square of the people: this is measured again every few seconds.
    """
    theirs: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        theirs[label.annotator].append(label)
    votes = [label for of_pair in sort_labels(labels).votes.values() for label in of_pair]
    names = {person_of(label): label.annotator for label in labels}
    table = choice_table(votes, names)
    found = _agreement(table, Bootstrap(resamples))
    nothing = NO_LABELS.agreement
    return CampaignQuality(
        everybody=_quality(labels, answers, len(votes), found.get(_ALL, nothing)),
        alpha=found.get(_ALPHA, nothing),
        people={
            name: _quality(
                own,
                answers,
                sum(label.annotator == name for label in votes),
                found.get(("person", name), nothing),
            )
            for name, own in theirs.items()
        },
    )


def _quality(
    labels: Sequence[Label], answers: Mapping[str, Choice], votes: int, agreement: Estimate
) -> Quality:
    return Quality(
        votes,
        person_statistics.gold_accuracy(labels, answers),
        person_statistics.self_consistency(labels),
        agreement,
    )


def _agreement(votes: VoteTable, bootstrap: Bootstrap) -> Mapping[Key, Estimate]:
    """Return agreement in all, alpha, and each person's agreement with the others."""
    if not votes.people:
        return {}
    two = int((votes.votes_per_item >= 2).sum())
    blocks = [
        Sums(
            coefficients.agreeing_pairs(votes),
            (Figure(_ALL, coefficients.percent_agreement(votes), two, coefficients.ratio_of),),
        ),
        Sums(
            coefficients.coincidences(votes),
            (
                Figure(
                    _ALPHA,
                    coefficients.krippendorff_alpha(votes, "nominal"),
                    two,
                    coefficients.alpha_of("nominal"),
                ),
            ),
        ),
    ]
    for number, name in enumerate(votes.people):
        sums = with_others(votes, number)
        value = coefficients.ratio(sums, "nobody else voted on their items")
        shared = int((sums.toarray()[:, 1] > 0).sum())
        blocks.append(Sums(sums, (Figure(("person", name), value, shared, coefficients.ratio_of),)))
    return bootstrap.estimates(blocks)
