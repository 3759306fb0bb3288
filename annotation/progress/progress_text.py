"""How far a campaign has come, in sentences, rows of tables and JSON: for terminal and page.

A person's row bears whatever name it is asked for under: user names for whoever runs the campaign,
who must know whom to speak to; pseudonyms, as in exported labels, for everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from annotation.agreement.intervals import Estimate, Value
from annotation.agreement.report import coefficient, share
from annotation.agreement.vote_table import in_natural_order
from annotation.progress.pace import BREAK, Pace
from annotation.progress.progress import PersonProgress, Standing
from plumbline.pages import percent
from plumbline.runs.progress import duration

Names = Mapping[str, str]


def in_shown_order(standing: Standing, names: Names) -> list[PersonProgress]:
    """Return people in the order of what they are called here.

    Any other order would tell something of the real names.
    """
    place = {name: n for n, name in enumerate(in_natural_order(names.values()))}
    return sorted(standing.people, key=lambda person: place[names[person.name]])


def names_for(standing: Standing, *, real: bool) -> dict[str, str]:
    """Return what each person is called, by their name in the standing."""
    if real:
        return {person.name: person.name for person in standing.people}
    unknown = 0
    names: dict[str, str] = {}
    for person in standing.people:
        unknown += person.pseudonym is None
        names[person.name] = person.pseudonym or f"not begun {unknown}"
    return names


def sentences(standing: Standing) -> list[str]:
    """Return how far it has come and what is left, with no more certainty than there is."""
    totals = standing.totals
    if not totals.items:
        return ["Nothing has been sent yet."]
    votes = totals.votes + totals.votes_missing
    told = [
        f"{percent(totals.done)} done: of {totals.wanted:,} answers, "
        f"{totals.wanted - totals.open - totals.set_aside:,} are there, "
        + (f"{totals.set_aside:,} were discarded for good, " if totals.set_aside else "")
        + f"and {totals.open:,} are missing. Of {totals.pairs:,} pairs, "
        f"{totals.pairs_completed:,} have all their votes; "
        f"{totals.votes_missing:,} of {votes:,} votes are missing.",
        f"{totals.last_hour:,} answers in the last hour, {totals.last_day:,} in the last day.",
    ]
    if totals.open:
        told += [_work_left(standing), _finish(standing)]
    else:
        told.append("Nothing waits for anybody.")
    return told


def _work_left(standing: Standing) -> str:
    work, together = standing.time_left.person_hours, standing.time_left.together_hours
    if work.value is None or together.value is None:
        return f"How long the rest takes is unknown: {work.reason}."
    return (
        f"At the pace so far the rest takes {hours(work.value)} of work in all; "
        f"{hours(together.value)} until the last one is done, if everybody works at the same time "
        "and takes no break."
    )


def _finish(standing: Standing) -> str:
    found = standing.forecast
    if found.finish is None:
        return f"No day can be named: {found.reason}."
    within = found.finish - standing.now
    when = (
        "within a day"
        if within <= timedelta(days=1)
        else f"in about {within / timedelta(days=1):.0f} days, around "
        f"{found.finish.astimezone():%-d %B %Y}"
    )
    return (
        f"If people go on as in the last {found.days_looked_at:.1f} days ({found.answers:,} "
        f"answers), the last answer comes {when}."
    )


def quality_sentence(standing: Standing) -> str:
    """Return how good the answers are so far, in one sentence."""
    found = standing.quality
    parts = []
    if found.everybody.agreement.value is not None:
        parts.append(
            f"two votes on the same pair agree in {share(found.everybody.agreement)} of cases "
            f"(Krippendorff's alpha {coefficient(found.alpha)})"
        )
    if found.everybody.gold_accuracy.value is not None:
        gold = found.everybody.gold_accuracy
        parts.append(f"gold items answered right: {share(gold)} of {gold.n:,}")
    if found.everybody.self_consistency.value is not None:
        again = found.everybody.self_consistency
        parts.append(f"repeats answered as before: {share(again)} of {again.n:,}")
    if not parts:
        return "Nothing tells yet how good the answers are."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def notes(standing: Standing, names: Names) -> list[str]:
    """Return what somebody who runs the campaign should see to, and how figures were taken."""
    totals, told = standing.totals, []
    if totals.not_sent:
        told.append(
            f"{totals.not_sent:,} showings are decided, but not sent: a push was stopped. The same "
            "push goes on with them."
        )
    if totals.out_of_reach:
        told.append(
            f"{totals.out_of_reach:,} answers wait for people who are not there: too few can see "
            f"the shared queue for an overlap of {standing.overlap}. Let more in: 'plumbline "
            "annotate users add NAME --workspace WORKSPACE'."
        )
    if totals.votes_lost:
        told.append(
            f"{totals.votes_lost:,} of the missing votes will not come: the people who were asked "
            "discarded those pairs."
        )
    idle = [
        names[person.name]
        for person in in_shown_order(standing, names)
        if person.open and not person.answers
    ]
    if idle:
        told.append(f"Nothing answered yet by {', '.join(idle)}.")
    everybody = standing.quality.everybody
    for person in in_shown_order(standing, names):
        name, own = names[person.name], person.quality
        if _below(own.gold_accuracy, everybody.gold_accuracy):
            told.append(f"{name} answers fewer gold items right than people do in all.")
        if _below(own.agreement, everybody.agreement):
            told.append(f"{name} agrees with the others less than people do in all.")
    for reason, words in (
        ("not_of_this_campaign", "answers are to records that this campaign did not send"),
        ("without_choice", "answers choose nothing, and are no labels"),
        ("taken_back", "answers were taken back by their people"),
    ):
        if standing.counts.get(reason):
            told.append(f"{standing.counts[reason]:,} {words}.")
    told.append(
        "Pace is answers (submitted or discarded) in an hour of work: gaps of more than "
        f"{BREAK / timedelta(minutes=1):.0f} minutes between two answers are breaks, and count for "
        "nothing. Intervals cover 95%: Wilson's for gold items and repeats, a bootstrap over pairs "
        "for agreement."
    )
    return told


def _below(own: Estimate, everybody: Estimate) -> bool:
    """Tell whether a person's figure surely lies below everybody's."""
    return own.high is not None and everybody.value is not None and own.high < everybody.value


def hours(value: float) -> str:
    """Return a number of hours as a person would say it."""
    return duration(value * 3600)


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, as far as it matters."""
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
    """Return a pace in answers an hour."""
    rate = pace.per_hour.value
    return "–" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def seconds_words(value: Value) -> str:
    """Return a median of seconds."""
    if value.value is None:
        return "–"
    return f"{value.value:,.0f}" if value.value >= 10 else f"{value.value:.1f}"


def as_dict(standing: Standing, *, real_names: bool = False) -> dict[str, Any]:
    """Return JSON types; people by pseudonym, with their names only where these are asked for."""
    totals, expected = standing.totals, standing.forecast
    people = in_shown_order(standing, names_for(standing, real=real_names))
    return {
        "campaign": standing.name,
        "at": standing.now.isoformat(),
        "finished": standing.finished,
        "overlap": standing.overlap,
        "shared_queue": standing.shared,
        **{
            key: value
            for key, value in asdict(totals).items()
            if key not in ("pace", "first_answer", "last_answer")
        },
        "done": totals.done,
        "first_answer": _iso(totals.first_answer),
        "last_answer": _iso(totals.last_answer),
        "pace": _pace(totals.pace),
        "hours_of_work_left": _value(standing.time_left.person_hours),
        "hours_left_together": _value(standing.time_left.together_hours),
        "forecast": asdict(expected) | {"finish": _iso(expected.finish)},
        "quality": asdict(standing.quality.everybody) | {"alpha": asdict(standing.quality.alpha)},
        "counts": dict(standing.counts),
        "people": [_person(person, real_names=real_names) for person in people],
    }


def _person(person: PersonProgress, *, real_names: bool) -> dict[str, Any]:
    found = {"person": person.pseudonym} | ({"name": person.name} if real_names else {})
    counted = ("assigned", "submitted", "discarded", "open", "done", "last_hour", "last_day")
    return (
        found
        | {name: getattr(person, name) for name in counted}
        | {"last_seen": _iso(person.last_seen), "pace": _pace(person.pace)}
        | asdict(person.quality)
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
