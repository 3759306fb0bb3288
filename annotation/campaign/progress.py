"""How far a campaign has come: per person and in all, from its journal alone.

Nothing here asks the server: pull first, and this is what was pulled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from annotation.campaign.argilla import Answer
from annotation.campaign.items import RESERVE, SHARED, Item, person_of, pseudonym
from annotation.campaign.pull import Labels, labels_of
from annotation.campaign.state import Campaign
from annotation.habits import gold_accuracy, self_consistency
from annotation.intervals import Estimate

LONGEST_PAUSE = timedelta(minutes=10)
"""Somebody who gives no answer for longer is having a break."""
_LEAST_ANSWERS = 3


@dataclass(frozen=True)
class Pace:
    """How fast somebody works while they work."""

    answers: int
    active: timedelta
    """Time between answers, without breaks."""

    @property
    def per_hour(self) -> float | None:
        """Answers an hour while active; None where there are too few to tell."""
        if self.answers < _LEAST_ANSWERS or not self.active:
            return None
        return self.answers / (self.active / timedelta(hours=1))


@dataclass(frozen=True)
class PersonProgress:
    """How far one person has come."""

    person: str
    """The user's name where it is known, for whoever runs the campaign; else the pseudonym."""
    annotator: str
    """The pseudonym; of somebody who has not answered yet, nothing."""
    assigned: int | None
    """Showings in their own queues; None for somebody who takes from a shared one."""
    submitted: int
    discarded: int
    votes: int
    gold: Estimate
    """Share of gold items answered right."""
    consistency: Estimate
    """Share of repeats answered as before."""
    pace: Pace
    last_answer: str | None

    @property
    def left(self) -> int | None:
        """Showings that still wait for this person; None in a shared queue."""
        if self.assigned is None:
            return None
        return max(0, self.assigned - self.submitted - self.discarded)

    @property
    def seconds_left(self) -> float | None:
        """Working time that their queue will still take; None where nobody can tell."""
        if self.left is None or (self.left and self.pace.per_hour is None):
            return None
        return 3600 * self.left / self.pace.per_hour if self.pace.per_hour else 0.0


@dataclass(frozen=True)
class Progress:
    """How far a campaign has come."""

    people: tuple[PersonProgress, ...]
    showings: int
    """Answers that the campaign asks for: one a showing, or ``overlap`` in a shared queue."""
    submitted: int
    discarded: int
    left: int
    """Answers that are still asked for."""
    pairs: int
    """Pairs to vote on."""
    complete_pairs: int
    """Pairs with as many votes as they should have."""
    per_hour: float | None
    """Answers an hour of all who work, while all work."""
    seconds_left: float | None
    """Working time until the last one is done; None where nobody can tell."""
    gold: Estimate
    consistency: Estimate
    labels: Labels
    """What all of this was taken from."""


def progress_of(campaign: Campaign) -> Progress:
    """Return how far a campaign has come, as its journal has it."""
    items = [item for item in campaign.items() if item.queue != RESERVE]
    answers = campaign.ledger().current()
    labels = labels_of(campaign)
    names, secret = campaign.people(), campaign.secret
    by_id = {item.id: item for item in items}
    known = [answer for answer in answers if answer.item in by_id]
    people = _people(items, known, labels, names, secret)

    votes = Counter(label.pair_id for label in labels.labels if label.purpose == "vote")
    wanted: Counter[str] = Counter()
    for item in items:
        if item.purpose == "vote":
            wanted[item.pair_id] += campaign.config.overlap if item.queue == SHARED else 1
    left = _left(items, known, by_id, campaign.config.overlap)
    paces = [pace for one in people if (pace := one.pace.per_hour) is not None]
    return Progress(
        people=tuple(people),
        showings=sum(campaign.config.overlap if i.queue == SHARED else 1 for i in items),
        submitted=sum(answer.status == "submitted" for answer in known),
        discarded=sum(answer.status == "discarded" for answer in known),
        left=left,
        pairs=len(wanted),
        complete_pairs=sum(votes[pair_id] >= count for pair_id, count in wanted.items()),
        per_hour=sum(paces) if paces else None,
        seconds_left=_seconds_left(people, left, sum(paces)),
        gold=gold_accuracy(labels.labels, labels.gold),
        consistency=self_consistency(labels.labels),
        labels=labels,
    )


def pace_of(answers: Sequence[Answer]) -> Pace:
    """Return how fast somebody answered: the time between answers that is no break.

    The first answer's own time cannot be known, so n answers have n - 1 times; the first after a
    break counts the median of the others'.
    """
    times = sorted(datetime.fromisoformat(answer.given_at) for answer in answers)
    gaps = [after - before for before, after in pairwise(times)]
    working = [gap for gap in gaps if gap <= LONGEST_PAUSE]
    if not working:
        return Pace(len(times), timedelta())
    unknown = len(times) - len(working)
    usual = timedelta(seconds=median(gap.total_seconds() for gap in working))
    return Pace(len(times), sum(working, timedelta()) + unknown * usual)


def _people(
    items: Sequence[Item],
    answers: Sequence[Answer],
    labels: Labels,
    names: dict[str, str],
    secret: bytes,
) -> list[PersonProgress]:
    assigned = Counter(person for item in items if (person := person_of(item.queue)) is not None)
    given: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        given[answer.user_id].append(answer)
    found = []
    for user_id, theirs in given.items():
        annotator = pseudonym(secret, user_id)
        name = names.get(user_id, annotator)
        mine = [label for label in labels.labels if label.annotator == annotator]
        found.append(
            PersonProgress(
                person=name,
                annotator=annotator,
                assigned=assigned.pop(name, None),
                submitted=sum(answer.status == "submitted" for answer in theirs),
                discarded=sum(answer.status == "discarded" for answer in theirs),
                votes=sum(label.purpose == "vote" for label in mine),
                gold=gold_accuracy(mine, labels.gold),
                consistency=self_consistency(mine),
                pace=pace_of(theirs),
                last_answer=max(answer.changed_at for answer in theirs),
            )
        )
    for name, count in assigned.items():
        nothing = gold_accuracy([], labels.gold), self_consistency([])
        found.append(PersonProgress(name, "", count, 0, 0, 0, *nothing, Pace(0, timedelta()), None))
    return sorted(found, key=lambda one: one.person)


def _left(
    items: Sequence[Item], answers: Sequence[Answer], by_id: dict[str, Item], overlap: int
) -> int:
    """Return how many answers are still asked for; more than enough for one is none for another."""
    submitted: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for answer in answers:
        item = by_id[answer.item or ""]
        submitted[item.id] += answer.status == "submitted"
        done[item.id] += answer.status in ("submitted", "discarded")
    return sum(
        max(0, overlap - submitted[item.id]) if item.queue == SHARED else max(0, 1 - done[item.id])
        for item in items
    )


def _seconds_left(people: Sequence[PersonProgress], left: int, per_hour: float) -> float | None:
    """Return the working time until all is done: the longest own queue, or a shared one's share."""
    if not left:
        return 0.0
    owners = [one for one in people if one.assigned is not None]
    if not owners:
        return 3600 * left / per_hour if per_hour else None
    times = [one.seconds_left for one in owners]
    return None if None in times else max(time for time in times if time is not None)
