"""The status page of a campaign: one HTML file that opens offline and follows while it is live."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from annotation.agreement.intervals import Estimate
from annotation.agreement.report import coefficient, share
from annotation.private_files import write_private
from annotation.progress.progress import PersonProgress, Standing
from annotation.progress.progress_text import (
    ago,
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
"""Points of a chart; more could not be told apart."""


class Line(NamedTuple):
    """Answers over time, in a box of 100 by 100 with its origin at the top left."""

    points: str
    """As an SVG polyline has them."""
    target: float | None
    """Where the line of all answers asked for lies, if it lies in the box."""


class Bar(NamedTuple):
    """A bar in per cent."""

    submitted: float
    discarded: float


class Range(NamedTuple):
    """Where a share and its interval lie on an axis from 0 to 100."""

    value: float
    low: float
    width: float


def write_page(
    file: Path,
    standing: Standing,
    *,
    real_names: bool = False,
    refresh: float | None = None,
    trouble: str | None = None,
) -> None:
    """Write the page, so that a browser finds the old one or the new one, whole.

    With people's names on it, nobody but its owner may read the file.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    page = render(standing, real_names=real_names, refresh=refresh, trouble=trouble)
    if real_names:
        write_private(file, page)
        return
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(page, encoding="utf-8")
    beside.replace(file)


def render(
    standing: Standing,
    *,
    real_names: bool = False,
    refresh: float | None = None,
    trouble: str | None = None,
) -> str:
    """Return the page. With ``refresh``, a browser reads it again every so many seconds."""
    environment = pages.templates("annotation")
    environment.filters |= {
        "share": share,
        "coefficient": coefficient,
        "pace": pace_words,
        "seconds": seconds_words,
        "ago": lambda moment: ago(moment, standing.now),
        "clock": clock,
        "minute": lambda moment: f"{moment.astimezone():%Y-%m-%d %H:%M}",
        "bar": bar,
        "range": interval,
    }
    names = names_for(standing, real=real_names)
    people = in_shown_order(standing, names)
    first, totals = standing.totals.first_answer, standing.totals
    everybody = [time for person in standing.people for time in person.answered_at]
    most = max((_height(person) for person in standing.people), default=0)
    content: dict[str, Any] = {
        "title": f"Labelling: {standing.name}",
        "version": __version__,
        "refresh": max(1, round(refresh)) if refresh is not None else None,
        "trouble": trouble,
        "standing": standing,
        "totals": totals,
        "names": names,
        "people": people,
        "verdict": [*sentences(standing), quality_sentence(standing)],
        "notes": notes(standing, names),
        "first": first,
        "line": line(everybody, first, standing.now, max(totals.wanted, len(everybody)))
        if first is not None
        else None,
        "most": most,
        "lines": [
            (person, line(person.answered_at, first, standing.now, most, person.assigned))
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
    """Return how answers added up from the first one until now, as steps below ``most``."""
    ordered = sorted(times)
    span = max(now - first, timedelta(seconds=1))
    points = []
    before = -1
    for step in range(_STEPS + 1):
        count = bisect_right(ordered, first + span * (step / _STEPS))
        if count == before and step < _STEPS:
            continue  # a level stretch needs its ends alone
        x = 100 * step / _STEPS
        if before >= 0 and count != before:
            points.append(f"{x:g},{_y(before, most):g}")
        points.append(f"{x:g},{_y(count, most):g}")
        before = count
    return Line(" ".join(points), _y(target, most) if target and target <= most else None)


def bar(found: PersonProgress | Standing) -> Bar:
    """Return how much of what is asked for was submitted, and how much discarded."""
    if isinstance(found, Standing):
        totals = found.totals
        whole = max(1, totals.wanted)
        return Bar(
            round(100 * (totals.wanted - totals.open - totals.set_aside) / whole, 2),
            round(100 * totals.set_aside / whole, 2),
        )
    whole = max(1, found.answers + found.open)
    return Bar(round(100 * found.submitted / whole, 2), round(100 * found.discarded / whole, 2))


def interval(estimate: Estimate) -> Range | None:
    """Return where a share lies, or None where there is none."""
    if estimate.value is None:
        return None
    low = estimate.low if estimate.low is not None else estimate.value
    high = estimate.high if estimate.high is not None else estimate.value
    return Range(round(100 * estimate.value, 2), round(100 * low, 2), round(100 * (high - low), 2))


def clock(moment: datetime | None) -> str:
    """Return a moment on this machine's clock, with its zone."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment is not None else "–"


def _height(person: PersonProgress) -> int:
    return max(person.answers, person.assigned or 0)


def _y(count: int, most: int) -> float:
    return round(100 - 100 * count / max(1, most), 2)
