"""How fast people answer, and how long the rest will take them.

Nothing but the times of answers is known. So work is told from breaks by the gap between two
answers of a person in a row: one of up to `BREAK` is the time that the later answer took; a longer
one is a break, and says nothing about how long an answer takes. The first answer after a break
counts for nothing here either, since nobody knows when its reading began.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from annotation.agreement.intervals import Value

BREAK = timedelta(minutes=10)
WINDOW = timedelta(days=7)
"""How far back a forecast looks: a week has its Sunday in it."""
SHORTEST_WINDOW = timedelta(days=1)
"""Less than a day of answers does not tell how much gets done in a day, with its night."""
_HOUR = 3600.0


@dataclass(frozen=True)
class Pace:
    """How fast somebody, or a team, answers while at work."""

    timed: int
    """Answers whose time is known: those that followed another without a break."""
    active_seconds: float
    """The time that those took together."""
    median_seconds: Value
    """Of one of them."""

    @property
    def per_hour(self) -> Value:
        """Answers in an hour of one person's work."""
        if self.timed == 0:
            return Value(None, "no two answers in a row without a break between them")
        if self.active_seconds <= 0:
            return Value(None, "all answers bear the same time")
        return Value(self.timed / self.active_seconds * _HOUR)


def pace_of(times: Iterable[datetime], pause: timedelta = BREAK) -> Pace:
    """Return one person's pace, by when they gave their answers."""
    gaps = [later - earlier for earlier, later in pairwise(sorted(times))]
    worked = [gap.total_seconds() for gap in gaps if gap <= pause]
    if not worked:
        return Pace(0, 0.0, Value(None, "no two answers in a row without a break between them"))
    return Pace(len(worked), sum(worked), Value(median(worked)))


def pooled(paces: Iterable[Pace]) -> Pace:
    """Return the pace of all these people's work together: answers in a person's hour.

    Who has worked longer counts for more. It has no median of single answers.
    """
    found = list(paces)
    return Pace(
        sum(pace.timed for pace in found),
        sum(pace.active_seconds for pace in found),
        Value(None, "several people"),
    )


@dataclass(frozen=True)
class Load:
    """Answers that wait, and whoever may give them: one person, or those of a shared queue."""

    open: int
    paces: tuple[Pace, ...]
    recent: int = 0
    """Answers that these people gave within the forecast's window."""


@dataclass(frozen=True)
class TimeLeft:
    """How much work is left, in hours of work without breaks."""

    person_hours: Value
    """For one person after the other."""
    together_hours: Value
    """Until the last is done, if everybody who has something to answer works at the same time."""


def time_left(loads: Sequence[Load]) -> TimeLeft:
    """Return how long the answers that are missing take at the paces so far.

    Somebody whose own pace is not known yet is taken to have the team's. Where nobody's is, nothing
    can be said.
    """
    waiting = [load for load in loads if load.open]
    if not waiting:
        return TimeLeft(Value(0.0), Value(0.0))
    team = pooled(pace for load in loads for pace in load.paces).per_hour
    if team.value is None:
        reason = "nobody's pace is known: nobody has given two answers without a break yet"
        return TimeLeft(Value(None, reason), Value(None, reason))
    work, together = 0.0, 0.0
    for load in waiting:
        rate = pooled(load.paces).per_hour.value or team.value
        known = [speed for pace in load.paces if (speed := pace.per_hour.value) is not None]
        work += load.open / rate
        together = max(together, load.open / (sum(known) or team.value))
    return TimeLeft(Value(work), Value(together))


@dataclass(frozen=True)
class Forecast:
    """When the last answer may come, if people go on as they did; or why that is not known."""

    finish: datetime | None
    days_looked_at: float
    """How far back the forecast looks."""
    answers: int
    """Answers that were given in that time."""
    reason: str = ""


def forecast(loads: Sequence[Load], first: datetime | None, now: datetime) -> Forecast:
    """Return when the last answer comes if each load goes on shrinking as in the last days.

    Looks back for `WINDOW`, or to the first answer where that is later. It is no more than a
    continued line: people fall ill, and the last ones of a shared queue find fewer to answer them.
    """
    window = window_of(first, now)
    days, answers = window / timedelta(days=1), sum(load.recent for load in loads)
    waiting = [load for load in loads if load.open]
    if not waiting:
        return Forecast(None, days, answers, "nothing is missing")
    if first is None:
        return Forecast(None, days, answers, "nobody has answered yet")
    if window < SHORTEST_WINDOW:
        reason = "people began less than a day ago, so what gets done in a day is not known yet"
        return Forecast(None, days, answers, reason)
    stuck = sum(load.open for load in waiting if not load.recent)
    if stuck:
        reason = f"{stuck:,} answers wait for people who gave none in the last {days:.1f} days"
        return Forecast(None, days, answers, reason)
    return Forecast(
        now + max(window * (load.open / load.recent) for load in waiting), days, answers
    )


def window_of(first: datetime | None, now: datetime) -> timedelta:
    """Return how far back a forecast looks."""
    return min(WINDOW, max(now - first, timedelta())) if first is not None else timedelta()
