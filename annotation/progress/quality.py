"""The quality of answers so far: gold items, repeats and agreement, in total and by person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from annotation.aggregation.votes import person_of, sort_labels
from annotation.agreement import coefficients, person_statistics
from annotation.agreement.intervals import Bootstrap, Estimate, Key, Statistic, Sums
from annotation.agreement.label_agreement import choice_table
from annotation.agreement.measure import person_sums
from annotation.progress.alarms import Alarm, AlarmConfig, alarms_of
from annotation.vote_table import VoteTable
from plumbline.data.labels import Choice, Label

_ALL, _ALPHA, _PERSON = "agreement", "alpha", "person"


@dataclass(frozen=True)
class Quality:
    """The quality of one person's answers, or of everybody's together."""

    votes: int
    gold_accuracy: Estimate
    self_consistency: Estimate
    agreement: Estimate
    """Of a person: with the others' votes on the same pairs. Of everybody: of every two votes."""


@dataclass(frozen=True)
class CampaignQuality:
    """The quality of a campaign's answers."""

    everybody: Quality
    alpha: Estimate
    """Krippendorff's alpha, nominal."""
    people: Mapping[str, Quality]
    """By the annotator of the labels."""
    alarms: Mapping[str, tuple[Alarm, ...]]
    """By the annotator of the labels; people without an alarm are left out."""


NO_LABELS = Quality(
    0,
    Estimate(None, reason="no gold items"),
    Estimate(None, reason="no repeats"),
    Estimate(None, reason="no votes"),
)


def measure_quality(
    labels: Sequence[Label],
    answers: Mapping[str, Choice],
    words: Mapping[str, int],
    alarms: AlarmConfig,
    resamples: int = 200,
) -> CampaignQuality:
    """Measure the labels of one campaign.

    ``answers`` are those of its gold items and ``words`` the lengths of both responses, by pair.

    The numbers are those of the agreement page, without the ones about pairs of people: this is
    measured again every few seconds.
    """
    by_annotator: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_annotator[label.annotator].append(label)
    votes = [label for of_pair in sort_labels(labels).votes.values() for label in of_pair]
    names = {person_of(label): label.annotator for label in labels}
    estimates = _agreement(choice_table(votes, names), Bootstrap(resamples))
    nothing = NO_LABELS.agreement
    return CampaignQuality(
        everybody=_quality(labels, answers, len(votes), estimates.get(_ALL, nothing)),
        alpha=estimates.get(_ALPHA, nothing),
        people={
            name: _quality(
                own,
                answers,
                sum(label.annotator == name for label in votes),
                estimates.get((_PERSON, name), nothing),
            )
            for name, own in by_annotator.items()
        },
        alarms=alarms_of(labels, answers, words, alarms),
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
    """Return agreement of all, alpha, and each person's agreement with the others."""
    if not votes.people:
        return {}
    two = int((votes.votes_per_item >= 2).sum())
    agreement = coefficients.percent_agreement(votes)
    alpha = coefficients.krippendorff_alpha(votes, "nominal")
    return bootstrap.estimates(
        [
            Sums(
                coefficients.agreeing_pairs(votes),
                (Statistic.single(_ALL, agreement, two, coefficients.ratio_of),),
            ),
            Sums(
                coefficients.coincidences(votes),
                (Statistic.single(_ALPHA, alpha, two, coefficients.alpha_of("nominal")),),
            ),
            person_sums(
                _PERSON,
                coefficients.with_others(votes),
                votes.people,
                "nobody else voted on their items",
            ),
        ]
    )
