"""The progress of a campaign in sentences, table cells and JSON: for the terminal and the page.

The person who runs the campaign sees user names. Everybody else sees pseudonyms, as in exported
labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from annotation.agreement.intervals import Estimate, Value
from annotation.agreement.report import coefficient, share
from annotation.progress.pace import BREAK, Pace
from annotation.progress.progress import CampaignProgress, PersonProgress
from annotation.vote_table import in_natural_order
from plumbline.pages import percent
from plumbline.runs.progress import duration

Names = Mapping[str, str]


def in_shown_order(progress: CampaignProgress, names: Names) -> list[PersonProgress]:
    """Return people in the order of the names shown.

    Any other order would say something about the real names.
    """
    place = {name: n for n, name in enumerate(in_natural_order(names.values()))}
    return sorted(progress.people, key=lambda person: place[names[person.name]])


def names_for(progress: CampaignProgress, *, real: bool) -> dict[str, str]:
    """Return the name to show for each person, by their name in the progress."""
    if real:
        return {person.name: person.name for person in progress.people}
    unknown = 0
    names: dict[str, str] = {}
    for person in progress.people:
        unknown += person.pseudonym is None
        names[person.name] = person.pseudonym or f"not started {unknown}"
    return names


def sentences(progress: CampaignProgress) -> list[str]:
    """Return what is done and what is left, in sentences that claim no more than is known."""
    totals = progress.totals
    if not totals.items:
        return ["Nothing has been sent yet."]
    votes = totals.votes + totals.votes_missing
    lines = [
        f"{percent(totals.done)} done: of {totals.wanted:,} answers, "
        f"{totals.wanted - totals.open - totals.set_aside:,} are given, "
        + (f"{totals.set_aside:,} are discarded, " if totals.set_aside else "")
        + f"and {totals.open:,} are missing. Of {totals.pairs:,} pairs, "
        f"{totals.pairs_completed:,} have all their votes; "
        f"{totals.votes_missing:,} of {votes:,} votes are missing.",
        f"{totals.last_hour:,} answers in the last hour, {totals.last_day:,} in the last day.",
    ]
    if totals.open:
        lines += [_work_left(progress), _finish(progress)]
    else:
        lines.append("Nothing is left to answer.")
    return lines


def _work_left(progress: CampaignProgress) -> str:
    work, together = progress.time_left.person_hours, progress.time_left.together_hours
    if work.value is None or together.value is None:
        return f"The time that the rest takes is unknown: {work.reason}."
    return (
        f"At the pace so far, the rest takes {hours(work.value)} of work: {hours(together.value)} "
        "if everybody works at the same time and takes no break."
    )


def _finish(progress: CampaignProgress) -> str:
    expected = progress.forecast
    if expected.finish is None:
        return f"There is no forecast: {expected.reason}."
    within = expected.finish - progress.now
    when = (
        "within a day"
        if within <= timedelta(days=1)
        else f"in about {within / timedelta(days=1):.0f} days, around "
        f"{expected.finish.astimezone():%-d %B %Y}"
    )
    return (
        f"At the rate of the last {expected.days_looked_at:.1f} days ({expected.answers:,} "
        f"answers), the last answer comes {when}."
    )


def quality_sentence(progress: CampaignProgress) -> str:
    """Return the quality of the answers so far, in one sentence."""
    quality = progress.quality
    parts = []
    if quality.everybody.agreement.value is not None:
        parts.append(
            f"two votes on the same pair are equal in {share(quality.everybody.agreement)} of "
            f"cases (Krippendorff's alpha {coefficient(quality.alpha)})"
        )
    if quality.everybody.gold_accuracy.value is not None:
        gold = quality.everybody.gold_accuracy
        parts.append(f"gold items answered right: {share(gold)} of {gold.n:,}")
    if quality.everybody.self_consistency.value is not None:
        again = quality.everybody.self_consistency
        parts.append(f"repeats answered as the first time: {share(again)} of {again.n:,}")
    if not parts:
        return "Nothing is known yet about the quality of the answers."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def alarm_lines(progress: CampaignProgress, names: Names) -> list[str]:
    """Return the alarms about people, each with what to do."""
    return [
        f"{names[person.name]} {alarm.text}. {alarm.advice}"
        for person in in_shown_order(progress, names)
        for alarm in person.alarms
    ]


def notes(progress: CampaignProgress, names: Names) -> list[str]:
    """Return what needs attention, and how numbers were measured."""
    totals, lines = progress.totals, []
    if totals.not_sent:
        lines.append(
            f"{totals.not_sent:,} showings are decided but not sent: a push was stopped. The same "
            "push resumes with them."
        )
    if totals.out_of_reach:
        lines.append(
            f"{totals.out_of_reach:,} answers need more people: too few can see the shared queue "
            f"for an overlap of {progress.overlap}. Add some with 'plumbline annotate users add "
            "NAME --workspace WORKSPACE'."
        )
    if totals.votes_lost:
        lines.append(
            f"{totals.votes_lost:,} of the missing votes will not come, because the people "
            "asked discarded those pairs."
        )
    idle = [
        names[person.name]
        for person in in_shown_order(progress, names)
        if person.open and not person.answers
    ]
    if idle:
        lines.append(f"These people have answered nothing yet: {', '.join(idle)}.")
    everybody = progress.quality.everybody
    for person in in_shown_order(progress, names):
        name, own = names[person.name], person.quality
        if _below(own.gold_accuracy, everybody.gold_accuracy):
            lines.append(f"{name} answers fewer gold items right than people do on average.")
        if _below(own.agreement, everybody.agreement):
            lines.append(f"{name} agrees with the others less than people do on average.")
    for reason, words in (
        ("not_of_this_campaign", "answers are on records that this campaign did not send"),
        ("without_choice", "answers choose nothing and so are no labels"),
        ("taken_back", "answers were taken back"),
    ):
        if progress.counts.get(reason):
            lines.append(f"{progress.counts[reason]:,} {words}.")
    lines.append(
        "Pace is answers (submitted or discarded) per hour of work. A gap of more than "
        f"{BREAK / timedelta(minutes=1):.0f} minutes between two answers is a break and does not "
        "count. Intervals cover 95%: Wilson's for gold items and repeats, a bootstrap over pairs "
        "for agreement."
    )
    return lines


def _below(own: Estimate, everybody: Estimate) -> bool:
    """Return whether a person's number is clearly below everybody's."""
    return own.high is not None and everybody.value is not None and own.high < everybody.value


def hours(value: float) -> str:
    """Return a number of hours in words."""
    return duration(value * 3600)


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, rounded."""
    if moment is None:
        return "never"
    past = (now - moment).total_seconds()
    if past < 60:
        return "just now"
    for name, seconds in (("day", 86400), ("h", 3600), ("min", 60)):
        count = int(past // seconds)
        if count >= (2 if name == "day" else 1):
            return f"{count} {name}{'s' if name == 'day' else ''} ago"
    return "just now"


def pace_words(pace: Pace) -> str:
    """Return a pace in answers per hour."""
    rate = pace.per_hour.value
    return "–" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def seconds_words(value: Value) -> str:
    """Return a median time in seconds."""
    if value.value is None:
        return "–"
    return f"{value.value:,.0f}" if value.value >= 10 else f"{value.value:.1f}"


def as_dict(progress: CampaignProgress, *, real_names: bool = False) -> dict[str, Any]:
    """Return JSON types; people by pseudonym, and by name only with ``real_names``."""
    totals, expected = progress.totals, progress.forecast
    people = in_shown_order(progress, names_for(progress, real=real_names))
    return {
        "campaign": progress.name,
        "at": progress.now.isoformat(),
        "finished": progress.finished,
        "overlap": progress.overlap,
        "shared_queue": progress.shared,
        **{
            key: value
            for key, value in asdict(totals).items()
            if key not in ("pace", "first_answer", "last_answer")
        },
        "done": totals.done,
        "first_answer": _iso(totals.first_answer),
        "last_answer": _iso(totals.last_answer),
        "pace": _pace(totals.pace),
        "hours_of_work_left": _value(progress.time_left.person_hours),
        "hours_left_together": _value(progress.time_left.together_hours),
        "forecast": asdict(expected) | {"finish": _iso(expected.finish)},
        "quality": asdict(progress.quality.everybody) | {"alpha": asdict(progress.quality.alpha)},
        "counts": dict(progress.counts),
        "people": [_person(person, real_names=real_names) for person in people],
    }


def _person(person: PersonProgress, *, real_names: bool) -> dict[str, Any]:
    who = {"person": person.pseudonym} | ({"name": person.name} if real_names else {})
    counted = ("assigned", "submitted", "discarded", "open", "done", "last_hour", "last_day")
    return (
        who
        | {name: getattr(person, name) for name in counted}
        | {"last_seen": _iso(person.last_seen), "pace": _pace(person.pace)}
        | asdict(person.quality)
        | {"alarms": [asdict(alarm) for alarm in person.alarms]}
    )


def _pace(pace: Pace) -> dict[str, Any]:
    return {
        "per_hour": _value(pace.per_hour),
        "median_seconds": _value(pace.median_seconds),
        "timed": pace.timed,
        "active_seconds": pace.active_seconds,
    }


def _value(value: Value) -> dict[str, Any]:
    return {"value": value.value, "reason": value.reason}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
