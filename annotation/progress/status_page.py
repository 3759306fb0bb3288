"""The status page of a campaign: one HTML file that opens offline, and updates while live."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from annotation.agreement.intervals import Estimate
from annotation.agreement.report import coefficient, share
from annotation.private_files import replace, write_private
from annotation.progress.progress import CampaignProgress, PersonProgress
from annotation.progress.progress_text import (
    ago,
    alarm_lines,
    in_shown_order,
    names_for,
    notes,
    pace_words,
    quality_sentence,
    seconds_words,
    sentences,
)
from plumbline import __version__, pages

_STEPS = 160
"""Points of a chart; more would not be visible."""


class Line(NamedTuple):
    """Answers over time, in a box of 100 by 100 with its origin at the top left."""

    points: str
    """In the form of an SVG polyline."""
    target: float | None
    """The height of the line for all answers that are needed, if it is in the box."""


class Bar(NamedTuple):
    """A bar in per cent."""

    submitted: float
    discarded: float


class Range(NamedTuple):
    """The position of a share and its interval on an axis from 0 to 100."""

    value: float
    low: float
    width: float


def write_page(
    file: Path,
    progress: CampaignProgress,
    *,
    real_names: bool = False,
    refresh: float | None = None,
    warning: str | None = None,
) -> None:
    """Write the page, so that a browser finds the whole old one or the whole new one.

    With people's names on it, only its owner may read the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    page = render(progress, real_names=real_names, refresh=refresh, warning=warning)
    if real_names:
        write_private(file, page)
    else:
        replace(file, page)


def render(
    progress: CampaignProgress,
    *,
    real_names: bool = False,
    refresh: float | None = None,
    warning: str | None = None,
) -> str:
    """Return the page. With ``refresh``, a browser loads it again every so many seconds."""
    environment = pages.templates("annotation")
    environment.filters |= {
        "share": share,
        "coefficient": coefficient,
        "pace": pace_words,
        "seconds": seconds_words,
        "ago": lambda moment: ago(moment, progress.now),
        "clock": clock,
        "minute": lambda moment: f"{moment.astimezone():%Y-%m-%d %H:%M}",
        "bar": bar,
        "range": interval,
    }
    names = names_for(progress, real=real_names)
    people = in_shown_order(progress, names)
    first, totals = progress.totals.first_answer, progress.totals
    all_times = [time for person in progress.people for time in person.answered_at]
    most = max((_height(person) for person in progress.people), default=0)
    content: dict[str, Any] = {
        "title": f"Labelling: {progress.name}",
        "version": __version__,
        "refresh": max(1, round(refresh)) if refresh is not None else None,
        "warning": warning,
        "progress": progress,
        "totals": totals,
        "names": names,
        "people": people,
        "verdict": [*sentences(progress), quality_sentence(progress)],
        "alarms": alarm_lines(progress, names),
        "notes": notes(progress, names),
        "first": first,
        "line": line(all_times, first, progress.now, max(totals.wanted, len(all_times)))
        if first is not None
        else None,
        "most": most,
        "lines": [
            (person, line(person.answered_at, first, progress.now, most, person.assigned))
            for person in people
        ]
        if first is not None
        else [],
    }
    return environment.get_template("status.html.jinja").render(content)


def line(
    times: Sequence[datetime],
    first: datetime,
    now: datetime,
    most: int,
    target: int | None = None,
) -> Line:
    """Return the number of answers from the first one until now, as steps below ``most``."""
    ordered = sorted(times)
    span = max(now - first, timedelta(seconds=1))
    points = []
    before = -1
    for step in range(_STEPS + 1):
        count = bisect_right(ordered, first + span * (step / _STEPS))
        if count == before and step < _STEPS:
            continue  # a horizontal line needs only its ends
        x = 100 * step / _STEPS
        if before >= 0 and count != before:
            points.append(f"{x:g},{_y(before, most):g}")
        points.append(f"{x:g},{_y(count, most):g}")
        before = count
    return Line(" ".join(points), _y(target, most) if target and target <= most else None)


def bar(subject: PersonProgress | CampaignProgress) -> Bar:
    """Return the share of the needed answers that was submitted, and that was discarded."""
    if isinstance(subject, CampaignProgress):
        totals = subject.totals
        whole = max(1, totals.wanted)
        return Bar(
            round(100 * (totals.wanted - totals.open - totals.set_aside) / whole, 2),
            round(100 * totals.set_aside / whole, 2),
        )
    whole = max(1, subject.answers + subject.open)
    submitted, discarded = subject.submitted / whole, subject.discarded / whole
    return Bar(round(100 * submitted, 2), round(100 * discarded, 2))


def interval(estimate: Estimate) -> Range | None:
    """Return the position of a share, or None where there is none."""
    if estimate.value is None:
        return None
    low = estimate.low if estimate.low is not None else estimate.value
    high = estimate.high if estimate.high is not None else estimate.value
    return Range(round(100 * estimate.value, 2), round(100 * low, 2), round(100 * (high - low), 2))


def clock(moment: datetime | None) -> str:
    """Return a moment by this machine's clock, with its zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment is not None else "–"


def _height(person: PersonProgress) -> int:
    return max(person.answers, person.assigned or 0)


def _y(count: int, most: int) -> float:
    return round(100 - 100 * count / max(1, most), 2)
