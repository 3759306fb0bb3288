"""How far a campaign has come, by person and in all: worked out from its items and its journal.

Nothing is asked of the server here. An item is one showing of a pair in one queue. In a queue of
one's own it is dealt with once it was submitted or discarded; in a shared queue it waits until as
many different people have submitted it as the overlap says, and what somebody discards waits for
somebody else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from annotation.agreement.vote_table import in_natural_order
from annotation.campaign.argilla import Answer
from annotation.campaign.items import RESERVE, SHARED, Item, pseudonym
from annotation.campaign.pull import Labels
from annotation.campaign.showings import Showing, out_of_reach, showings_of
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

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class PersonProgress:
    """How far one person has come."""

    name: str
    """The user's name; their pseudonym where it is not known."""
    pseudonym: str | None
    """The name that their labels bear; None for somebody whose account is not known yet."""
    assigned: int | None
    """Showings in queues of their own; None for who has none, and takes from the shared queue."""
    submitted: int
    discarded: int
    open: int
    """Showings that wait for them; in a shared queue, that they may still take."""
    last_hour: int
    """Answers, submitted or discarded, in the last hour."""
    last_day: int
    pace: Pace
    last_seen: datetime | None
    """When they last gave or changed an answer."""
    answered_at: tuple[datetime, ...]
    """When they gave their answers, the earliest first."""
    quality: Quality

    @property
    def answers(self) -> int:
        """What they have dealt with: submitted or discarded."""
        return self.submitted + self.discarded

    @property
    def done(self) -> float | None:
        """The share of what was theirs to answer that they have dealt with."""
        total = self.answers + self.open
        return self.answers / total if total else None


@dataclass(frozen=True)
class Totals:
    """How far all of it has come."""

    items: int
    """Showings that were sent."""
    completed: int
    """Of these, submitted as often as they should be."""
    set_aside: int
    """Showings in queues of one's own that their person discarded; nobody else is asked."""
    not_sent: int
    """Showings that a push decided and has not sent yet."""
    submitted: int
    discarded: int
    wanted: int
    """Answers that the showings ask for: one each, and the overlap of each in the shared queue."""
    open: int
    """Of these, such that are still missing."""
    out_of_reach: int | None
    """Of these, such that nobody who can see the shared queue is left to give; None where it is
    not known who can."""
    pairs: int
    pairs_completed: int
    """Pairs with all their votes."""
    votes: int
    """Votes that count towards the overlap, so no more than it says on any pair."""
    votes_missing: int
    votes_lost: int
    """Of these, such that will not come, since their person discarded the pair."""
    last_hour: int
    last_day: int
    pace: Pace
    """Of all people's work together."""
    first_answer: datetime | None
    last_answer: datetime | None

    @property
    def done(self) -> float | None:
        """The share of the answers asked for that are missing no more."""
        return 1 - self.open / self.wanted if self.wanted else None


@dataclass(frozen=True)
class Standing:
    """How far a campaign has come."""

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
    """Labels by purpose, and answers that are none with the reason."""

    @property
    def finished(self) -> bool:
        """Whether nothing waits for anybody."""
        return self.totals.items > 0 and self.totals.open == 0 and self.totals.not_sent == 0


def standing_of(
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
) -> Standing:
    """Return how far a campaign has come.

    ``answers`` are those of the journal as they stand; ``labels`` and ``quality`` are what they
    amount to. ``queues`` are those that were sent. ``users`` are names by user id, an earlier
    account before a later one of the same name; ``members`` are the ids of those who can take from
    the shared queue, None where that is not known.
    """
    shown = showings_of(items, answers, queues, overlap)
    theirs: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.item in shown:
            theirs[answer.user_id].append(answer)
    own: dict[str, list[Showing]] = defaultdict(list)
    ids = {user_name: user for user, user_name in users.items()}
    for found in shown.values():
        if (owner := found.item.person) is not None:
            own[ids.get(owner, owner)].append(found)
    shared = [found for found in shown.values() if found.item.queue == SHARED]
    workers = {user for found in shared for user in found.submitted | found.discarded}
    takers = workers if members is None else set(members)
    everybody = list(dict.fromkeys([*own, *theirs, *sorted(takers)]))
    names = _names(everybody, users, theirs, secret)
    people = {
        user: _person(
            names[user],
            pseudonym(secret, user) if user in users or user in theirs else None,
            own.get(user),
            sum(found.missing > 0 for found in own.get(user, ()))
            + sum(found.missing > 0 and not found.by(user) for found in shared if user in takers),
            theirs.get(user, ()),
            quality,
            now,
        )
        for user in everybody
    }
    totals = _totals(shown.values(), items, labels, people.values(), members, now)
    since = now - window_of(totals.first_answer, now)
    loads = _loads(own, shared, workers, theirs, people, since)
    expected = forecast(loads, totals.first_answer, now)
    if totals.out_of_reach:
        reason = f"{totals.out_of_reach:,} answers wait for people who are not there yet"
        expected = replace(expected, finish=None, reason=reason)
    place = {shown_name: n for n, shown_name in enumerate(in_natural_order(names.values()))}
    return Standing(
        name=name,
        now=now,
        overlap=overlap,
        shared=SHARED in queues,
        totals=totals,
        people=tuple(sorted(people.values(), key=lambda person: place[person.name])),
        quality=quality,
        time_left=time_left(loads),
        forecast=expected,
        counts=labels.counts,
    )


def _names(
    everybody: Sequence[str],
    users: Mapping[str, str],
    answered: Collection[str],
    secret: bytes,
) -> dict[str, str]:
    """Return what to call everybody; further accounts of one name are numbered."""
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
    standing = [answer for answer in answers if answer.status != "draft"]
    times = sorted(datetime.fromisoformat(answer.given_at) for answer in standing)
    return PersonProgress(
        name=name,
        pseudonym=pseudonym,
        assigned=len(own) if own is not None else None,
        submitted=sum(answer.status == "submitted" for answer in standing),
        discarded=sum(answer.status == "discarded" for answer in standing),
        open=open_,
        last_hour=sum(time > now - _HOUR for time in times),
        last_day=sum(time > now - _DAY for time in times),
        pace=pace_of(times),
        last_seen=max(
            (datetime.fromisoformat(answer.changed_at) for answer in answers), default=None
        ),
        answered_at=tuple(times),
        quality=quality.people.get(pseudonym or "", NO_LABELS),
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
    for found in shown:
        if found.item.purpose == "vote":
            wanted[found.item.pair_id] += found.wanted
            lost[found.item.pair_id] += found.set_aside
    given = Counter(label.pair_id for label in labels.labels if label.purpose == "vote")
    missing = {pair: max(0, count - given[pair]) for pair, count in wanted.items()}
    times = [time for person in people for time in person.answered_at]
    seen = [person.last_seen for person in people if person.last_seen is not None]
    shared = [found for found in shown if found.item.queue == SHARED]
    return Totals(
        items=len(shown),
        completed=sum(found.completed for found in shown),
        set_aside=sum(found.set_aside for found in shown),
        not_sent=sum(item.queue != RESERVE for item in items) - len(shown),
        submitted=sum(person.submitted for person in people),
        discarded=sum(person.discarded for person in people),
        wanted=sum(found.wanted for found in shown),
        open=sum(found.missing for found in shown),
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
    own: Mapping[str, Sequence[Showing]],
    shared: Sequence[Showing],
    workers: Collection[str],
    theirs: Mapping[str, Sequence[Answer]],
    people: Mapping[str, PersonProgress],
    since: datetime,
) -> list[Load]:
    """Return what waits for each person, and what waits for whoever takes from the shared queue."""
    recent = {
        user: [
            answer
            for answer in answers
            if answer.status != "draft" and datetime.fromisoformat(answer.given_at) >= since
        ]
        for user, answers in theirs.items()
    }
    loads = []
    for user, queue in own.items():
        ids = {found.item.id for found in queue}
        answered = sum(answer.item in ids for answer in recent.get(user, ()))
        loads.append(Load(sum(found.missing for found in queue), (people[user].pace,), answered))
    if shared:
        ids = {found.item.id for found in shared}
        # What somebody discards waits for somebody else, and so brings the end no nearer.
        submitted = sum(
            answer.item in ids and answer.status == "submitted"
            for answers in recent.values()
            for answer in answers
        )
        paces = tuple(people[user].pace for user in sorted(workers))
        loads.append(Load(sum(found.missing for found in shared), paces, submitted))
    return loads
