"""The progress of a campaign, by person and in total, from its items and its journal.

Nothing here asks the server. An item is one showing of a pair in one queue. In a personal queue it
is done once its person has submitted or discarded it. In a shared queue it waits until as many
different people have submitted it as the overlap says; an item that one person discards waits for
another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from annotation.argilla.api import Answer
from annotation.campaign.items import RESERVE, SHARED, Item, is_training, pseudonym
from annotation.campaign.pull import Labels
from annotation.campaign.showings import Showing, out_of_reach, showings_of
from annotation.progress.alarms import Alarm
from annotation.progress.pace import (
    Forecast,
    Load,
    Pace,
    TimeLeft,
    forecast,
    pace_of,
    pooled,
    time_left,
    window_of,
)
from annotation.progress.quality import NO_LABELS, CampaignQuality, Quality
from annotation.vote_table import in_natural_order

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class PersonProgress:
    """The progress of one person."""

    name: str
    """The user's name, or their pseudonym where the name is not known."""
    pseudonym: str | None
    """The name on their labels; None for somebody whose account is not known yet."""
    assigned: int | None
    """Showings in their own queues; None for somebody who takes from the shared queue."""
    submitted: int
    discarded: int
    open: int
    """Showings that wait for them, and those that they may still take from a shared queue."""
    last_hour: int
    """Answers, submitted or discarded, in the last hour."""
    last_day: int
    pace: Pace
    last_seen: datetime | None
    """When they last gave or changed an answer."""
    answered_at: tuple[datetime, ...]
    """When they gave their answers, the earliest first."""
    quality: Quality
    alarms: tuple[Alarm, ...]

    @property
    def answers(self) -> int:
        """What they have submitted or discarded."""
        return self.submitted + self.discarded

    @property
    def done(self) -> float | None:
        """The share of their items that they have submitted or discarded."""
        total = self.answers + self.open
        return self.answers / total if total else None


@dataclass(frozen=True)
class Totals:
    """The progress of all people together."""

    items: int
    """Showings that were sent."""
    completed: int
    """How many of these have all their answers."""
    set_aside: int
    """Showings in personal queues that their person discarded; nobody else is asked."""
    not_sent: int
    """Showings that a push decided but has not sent yet."""
    submitted: int
    discarded: int
    wanted: int
    """Answers that the showings need: one each, or the overlap for each in the shared queue."""
    open: int
    """How many of these are still missing."""
    out_of_reach: int | None
    """How many of these nobody who can see the shared queue is left to give; None where it is not
    known who can see it."""
    pairs: int
    pairs_completed: int
    """Pairs with all their votes."""
    votes: int
    """Votes that count towards the overlap, so no more than it says on any pair."""
    votes_missing: int
    votes_lost: int
    """How many of these will not come, because their person discarded the pair."""
    last_hour: int
    last_day: int
    pace: Pace
    """Of everybody's work together."""
    first_answer: datetime | None
    last_answer: datetime | None

    @property
    def done(self) -> float | None:
        """The share of the needed answers that are no longer missing."""
        return 1 - self.open / self.wanted if self.wanted else None


@dataclass(frozen=True)
class CampaignProgress:
    """The progress of a campaign."""

    name: str
    now: datetime
    overlap: int
    shared: bool
    """Whether people take from one queue."""
    totals: Totals
    people: tuple[PersonProgress, ...]
    quality: CampaignQuality
    time_left: TimeLeft
    forecast: Forecast
    counts: Mapping[str, int]
    """Labels by purpose, and answers that are no labels by the reason."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to answer."""
        return self.totals.items > 0 and self.totals.open == 0 and self.totals.not_sent == 0


def measure_progress(
    name: str,
    items: Sequence[Item],
    answers: Sequence[Answer],
    labels: Labels,
    quality: CampaignQuality,
    *,
    overlap: int,
    queues: Collection[str],
    users: Mapping[str, str],
    members: Collection[str] | None,
    secret: bytes,
    now: datetime,
) -> CampaignProgress:
    """Return the progress of a campaign.

    ``answers`` are the current ones of the journal; ``labels`` and ``quality`` follow from them.
    ``queues`` are those that were sent. ``users`` are names by user id, an earlier account before a
    later one of the same name. ``members`` are the ids of those who can take from the shared queue,
    None where that is not known.
    """
    work = _Work.of(showings_of(items, answers, queues, overlap), answers, users)
    workers = {user for showing in work.shared for user in showing.submitted | showing.discarded}
    takers = workers if members is None else set(members)
    everybody = list(dict.fromkeys([*work.own, *work.answers, *sorted(takers)]))
    names = _names(everybody, users, work.answers, secret)
    people = {
        user: _person(
            names[user],
            pseudonym(secret, user) if user in users or user in work.answers else None,
            work.own.get(user),
            work.open_for(user, takes_shared=user in takers),
            work.answers.get(user, ()),
            quality,
            now,
        )
        for user in everybody
    }
    totals = _totals(work.showings.values(), items, labels, people.values(), members, now)
    loads = _loads(work, workers, people, now - window_of(totals.first_answer, now))
    expected = forecast(loads, totals.first_answer, now)
    if totals.out_of_reach:
        reason = f"{totals.out_of_reach:,} answers need people who have no access yet"
        expected = replace(expected, finish=None, reason=reason)
    position = {shown: number for number, shown in enumerate(in_natural_order(names.values()))}
    return CampaignProgress(
        name=name,
        now=now,
        overlap=overlap,
        shared=SHARED in queues,
        totals=totals,
        people=tuple(sorted(people.values(), key=lambda person: position[person.name])),
        quality=quality,
        time_left=time_left(loads),
        forecast=expected,
        counts=labels.counts,
    )


@dataclass(frozen=True)
class _Work:
    """The showings of a campaign, by whose they are, and the answers to them, by user."""

    showings: Mapping[str, Showing]
    own: Mapping[str, Sequence[Showing]]
    shared: Sequence[Showing]
    answers: Mapping[str, Sequence[Answer]]

    @classmethod
    def of(
        cls, showings: Mapping[str, Showing], answers: Sequence[Answer], users: Mapping[str, str]
    ) -> _Work:
        """Sort showings and answers."""
        by_user: dict[str, list[Answer]] = defaultdict(list)
        for answer in answers:
            if answer.item in showings:
                by_user[answer.user_id].append(answer)
        own: dict[str, list[Showing]] = defaultdict(list)
        ids = {user_name: user for user, user_name in users.items()}
        for showing in showings.values():
            if (owner := showing.item.person) is not None:
                own[ids.get(owner, owner)].append(showing)
        shared = [showing for showing in showings.values() if showing.item.queue == SHARED]
        return cls(showings, own, shared, by_user)

    def open_for(self, user: str, *, takes_shared: bool) -> int:
        """Return how many showings wait for somebody."""
        own = sum(showing.missing > 0 for showing in self.own.get(user, ()))
        if not takes_shared:
            return own
        return own + sum(
            showing.missing > 0 and not showing.is_done_by(user) for showing in self.shared
        )


def _names(
    everybody: Sequence[str],
    users: Mapping[str, str],
    answered: Collection[str],
    secret: bytes,
) -> dict[str, str]:
    """Return everybody's name; further accounts with the same name are numbered."""
    names: dict[str, str] = {}
    times: Counter[str] = Counter()
    for user in everybody:
        name = users.get(user) or (pseudonym(secret, user) if user in answered else user)
        times[name] += 1
        names[user] = name if times[name] == 1 else f"{name} ({times[name]})"
    return names


def _person(
    name: str,
    pseudonym: str | None,
    own: Sequence[Showing] | None,
    open_: int,
    answers: Sequence[Answer],
    quality: CampaignQuality,
    now: datetime,
) -> PersonProgress:
    final = [answer for answer in answers if answer.status != "draft"]
    times = sorted(datetime.fromisoformat(answer.given_at) for answer in final)
    return PersonProgress(
        name=name,
        pseudonym=pseudonym,
        assigned=len(own) if own is not None else None,
        submitted=sum(answer.status == "submitted" for answer in final),
        discarded=sum(answer.status == "discarded" for answer in final),
        open=open_,
        last_hour=sum(time > now - _HOUR for time in times),
        last_day=sum(time > now - _DAY for time in times),
        pace=pace_of(times),
        last_seen=max(
            (datetime.fromisoformat(answer.changed_at) for answer in answers), default=None
        ),
        answered_at=tuple(times),
        quality=quality.people.get(pseudonym or "", NO_LABELS),
        alarms=quality.alarms.get(pseudonym or "", ()),
    )


def _totals(
    shown: Collection[Showing],
    items: Sequence[Item],
    labels: Labels,
    people: Collection[PersonProgress],
    members: Collection[str] | None,
    now: datetime,
) -> Totals:
    wanted: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for showing in shown:
        if showing.item.purpose == "vote":
            wanted[showing.item.pair_id] += showing.wanted
            lost[showing.item.pair_id] += showing.set_aside
    voted = Counter(label.pair_id for label in labels.labels if label.purpose == "vote")
    missing = {pair: max(0, count - voted[pair]) for pair, count in wanted.items()}
    times = [time for person in people for time in person.answered_at]
    seen = [person.last_seen for person in people if person.last_seen is not None]
    shared = [showing for showing in shown if showing.item.queue == SHARED]
    return Totals(
        items=len(shown),
        completed=sum(showing.completed for showing in shown),
        set_aside=sum(showing.set_aside for showing in shown),
        not_sent=sum(item.queue != RESERVE and not is_training(item.queue) for item in items)
        - len(shown),
        submitted=sum(person.submitted for person in people),
        discarded=sum(person.discarded for person in people),
        wanted=sum(showing.wanted for showing in shown),
        open=sum(showing.missing for showing in shown),
        out_of_reach=out_of_reach(shared, members) if members is not None else None,
        pairs=len(wanted),
        pairs_completed=sum(not count for count in missing.values()),
        votes=wanted.total() - sum(missing.values()),
        votes_missing=sum(missing.values()),
        votes_lost=sum(min(count, lost[pair]) for pair, count in missing.items()),
        last_hour=sum(time > now - _HOUR for time in times),
        last_day=sum(time > now - _DAY for time in times),
        pace=pooled(person.pace for person in people),
        first_answer=min(times, default=None),
        last_answer=max(seen, default=None),
    )


def _loads(
    work: _Work,
    workers: Collection[str],
    people: Mapping[str, PersonProgress],
    since: datetime,
) -> list[Load]:
    """Return the answers that wait for each person, and those that wait in the shared queue."""
    recent = {
        user: [
            answer
            for answer in answers
            if answer.status != "draft" and datetime.fromisoformat(answer.given_at) >= since
        ]
        for user, answers in work.answers.items()
    }
    loads = []
    for user, queue in work.own.items():
        ids = {showing.item.id for showing in queue}
        answered = sum(answer.item in ids for answer in recent.get(user, ()))
        missing = sum(showing.missing for showing in queue)
        loads.append(Load(missing, (people[user].pace,), answered))
    if work.shared:
        ids = {showing.item.id for showing in work.shared}
        # What one person discards waits for another, and so brings the end no nearer.
        submitted = sum(
            answer.item in ids and answer.status == "submitted"
            for answers in recent.values()
            for answer in answers
        )
        paces = tuple(people[user].pace for user in sorted(workers))
        missing = sum(showing.missing for showing in work.shared)
        loads.append(Load(missing, paces, submitted))
    return loads
