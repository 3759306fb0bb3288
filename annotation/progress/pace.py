"""How fast people answer, and how long the rest will take.

Only the times of answers are known. So the gap between two consecutive answers of a person decides:
up to `BREAK`, it is the time that the later answer took; a longer one is a break. The first answer
after a break is not timed, because nobody knows when its reading began.
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
"""How far back a forecast looks: a week, so that it includes a weekend."""
SHORTEST_WINDOW = timedelta(days=1)
"""No forecast is made from less than a day of answers: it would leave out the night."""
_HOUR = 3600.0


@dataclass(frozen=True)
class Pace:
    """How fast a person, or a team, answers while working."""

    timed: int
    """Answers whose time is known: those that followed another one without a break."""
    active_seconds: float
    """The time that these took together."""
    median_seconds: Value
    """The median time of one of these."""

    @property
    def per_hour(self) -> Value:
        """Answers per hour of one person's work."""
        if self.timed == 0:
            return Value(None, "no two answers without a break between them")
        if self.active_seconds <= 0:
            return Value(None, "all answers have the same time")
        return Value(self.timed / self.active_seconds * _HOUR)


def pace_of(times: Iterable[datetime], pause: timedelta = BREAK) -> Pace:
    """Return one person's pace, by the times of their answers."""
    gaps = [later - earlier for earlier, later in pairwise(sorted(times))]
    worked = [gap.total_seconds() for gap in gaps if gap <= pause]
    if not worked:
        return Pace(0, 0.0, Value(None, "no two answers without a break between them"))
    return Pace(len(worked), sum(worked), Value(median(worked)))


def pooled(paces: Iterable[Pace]) -> Pace:
    """Return the pace of several people together, in answers per hour of one person's work.

    People who have worked longer count more. There is no median of single answers.
    """
    members = list(paces)
    return Pace(
        sum(pace.timed for pace in members),
        sum(pace.active_seconds for pace in members),
        Value(None, "several people"),
    )


@dataclass(frozen=True)
class Load:
    """Missing answers, and who may give them: one person, or those of a shared queue."""

    open: int
    paces: tuple[Pace, ...]
    recent: int = 0
    """Answers that these people gave in the forecast's window."""


@dataclass(frozen=True)
class TimeLeft:
    """The work that is left, in hours without breaks."""

    person_hours: Value
    """The hours of all people added up."""
    together_hours: Value
    """The hours until the last answer, if everybody works at the same time."""


def time_left(loads: Sequence[Load]) -> TimeLeft:
    """Return how long the missing answers take at the paces so far.

    A person whose own pace is not known yet counts with the team's. Where nobody's pace is known,
    there is no value.
    """
    waiting = [load for load in loads if load.open]
    if not waiting:
        return TimeLeft(Value(0.0), Value(0.0))
    team = pooled(pace for load in loads for pace in load.paces).per_hour
    if team.value is None:
        reason = "nobody has given two answers without a break yet, so no pace is known"
        return TimeLeft(Value(None, reason), Value(None, reason))
    work, together = 0.0, 0.0
    for load in waiting:
        rate = pooled(load.paces).per_hour.value or team.value
        speeds = [speed for pace in load.paces if (speed := pace.per_hour.value) is not None]
        work += load.open / rate
        together = max(together, load.open / (sum(speeds) or team.value))
    return TimeLeft(Value(work), Value(together))


@dataclass(frozen=True)
class Forecast:
    """When the last answer may come if people continue at this rate, or why that is unknown."""

    finish: datetime | None
    days_looked_at: float
    """How many days back the forecast looks."""
    answers: int
    """How many answers were given in that time."""
    reason: str = ""


def forecast(loads: Sequence[Load], first: datetime | None, now: datetime) -> Forecast:
    """Return when the last answer comes if each load shrinks as fast as in the last days.

    It looks back for `WINDOW`, or to the first answer if that is later. It extends a line and knows
    nothing else: people fall ill, and fewer people are left for the last pairs of a shared queue.
    """
    window = window_of(first, now)
    days, answers = window / timedelta(days=1), sum(load.recent for load in loads)
    waiting = [load for load in loads if load.open]
    if not waiting:
        return Forecast(None, days, answers, "nothing is missing")
    if first is None:
        return Forecast(None, days, answers, "nobody has answered yet")
    if window < SHORTEST_WINDOW:
        reason = "people began less than a day ago, so the answers per day are not known yet"
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
