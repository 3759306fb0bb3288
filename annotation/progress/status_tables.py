"""The progress of a campaign, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from annotation.agreement.report import share
from annotation.progress.progress import CampaignProgress, PersonProgress
from annotation.progress.progress_text import (
    ago,
    alarm_lines,
    names_for,
    notes,
    pace_words,
    quality_sentence,
    seconds_words,
    sentences,
)
from plumbline.pages import percent

_BAR, _PERSON = 12, 10
_NARROW = 100
"""Terminals with fewer columns show no bars."""


def tables(
    progress: CampaignProgress,
    width: int,
    warning: str | None = None,
    every: float | None = None,
    site: str | None = None,
) -> Group:
    """Return what a terminal shows: sentences, two tables and notes.

    ``site``: what the campaign's server is, in words.
    """
    clock = f"{progress.now.astimezone():%H:%M:%S}"
    how = f", every {every:g} s; Ctrl-C ends" if every is not None else ""
    parts: list[Text | Table] = [
        Text.from_markup(f"[bold]{escape(progress.name)}[/bold]  [dim]as of {clock}{how}[/dim]")
    ]
    if site is not None:
        parts.append(Text(f"Site: {site}", style="dim"))
    if warning is not None:
        parts.append(Text(warning, style="yellow"))
    parts += [Text(line) for line in [*sentences(progress), quality_sentence(progress)]]
    names = names_for(progress, real=True)
    alarms = alarm_lines(progress, names)
    if alarms:
        parts += [Text(""), Text("Look at this", style="bold yellow")]
        parts += [Text(f"- {line}") for line in alarms]
    parts += [
        Text(""),
        _progress(progress, bars=width >= _NARROW),
        Text(""),
        _quality(progress),
        Text(""),
    ]
    parts += [Text(note, style="dim") for note in notes(progress, names)]
    return Group(*parts)


def _progress(progress: CampaignProgress, *, bars: bool) -> Table:
    table = Table(box=None, pad_edge=False, title="Progress", title_justify="left",
                  title_style="bold")  # fmt: skip
    table.add_column("person", min_width=_PERSON)
    if bars:
        table.add_column("", width=_BAR)
    for header in ("done", "answers", "disc.", "open", "hour", "day", "pace", "s each"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("last seen", no_wrap=True)

    def bar(total: int, done: int) -> list[ProgressBar]:
        return [ProgressBar(max(1, total), done, width=_BAR, complete_style="cyan")] if bars else []

    def row(person: PersonProgress) -> None:
        of = f"/{person.assigned:,}" if person.assigned is not None else ""
        table.add_row(
            escape(person.name),
            *bar(person.answers + person.open, person.answers),
            percent(person.done),
            f"{person.answers:,}{of}",
            f"{person.discarded:,}",
            f"{person.open:,}",
            f"{person.last_hour:,}",
            f"{person.last_day:,}",
            pace_words(person.pace),
            seconds_words(person.pace.median_seconds),
            ago(person.last_seen, progress.now),
        )

    for person in progress.people:
        row(person)
    totals = progress.totals
    table.add_row(
        "everybody",
        *bar(totals.wanted, totals.wanted - totals.open),
        percent(totals.done),
        f"{totals.submitted + totals.discarded:,}",
        f"{totals.discarded:,}",
        f"{totals.open:,}",
        f"{totals.last_hour:,}",
        f"{totals.last_day:,}",
        pace_words(totals.pace),
        "",
        ago(totals.last_answer, progress.now),
        style="bold",
    )
    return table


def _quality(progress: CampaignProgress) -> Table:
    table = Table(box=None, pad_edge=False, title="Quality", title_justify="left",
                  title_style="bold")  # fmt: skip
    table.add_column("person", min_width=_PERSON)
    for header in ("votes", "gold items right", "of", "repeats as the first time", "of",
                   "equals another's vote"):  # fmt: skip
        table.add_column(header, justify="right")
    rows = [(person.name, person.quality, "") for person in progress.people]
    for name, quality, style in [*rows, ("everybody", progress.quality.everybody, "bold")]:
        table.add_row(
            escape(name),
            f"{quality.votes:,}",
            share(quality.gold_accuracy),
            f"{quality.gold_accuracy.n:,}",
            share(quality.self_consistency),
            f"{quality.self_consistency.n:,}",
            share(quality.agreement),
            style=style,
        )
    return table
