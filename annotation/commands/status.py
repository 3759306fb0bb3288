"""``plumbline annotate status``: how far a campaign has come, once or live, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annotation.commands.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group
    from rich.table import Table

    from annotation.campaign.argilla import Argilla
    from annotation.campaign.overview import Look, Overview
    from annotation.campaign.standing import PersonProgress, Standing

app = typer.Typer()

_ONCE_PATIENCE, _LIVE_PATIENCE = 10.0, 2.0
_BAR = 12
_OLD = "These are the figures of the last pull."


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Option(
            "--campaign", "-n", help="The campaign's name; not needed where there is one alone."
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Go on until all is answered, or Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="With --live: how often to look.")
    ] = 5.0,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page that opens offline. With --live, an open page follows. People are "
            "under their pseudonyms, as in exported labels.",
        ),
    ] = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names",
            help="Show people's names on the page and in the JSON, too. The tables here always "
            "have them: whoever runs a campaign must know whom to speak to.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object; with --live, one a line.")
    ] = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """Show how far people have come: progress, pace, agreement, gold accuracy, time left.

    What was answered since the last time is pulled first. Exits with 1 where the server does not
    answer, after showing what the last pull knew.
    """
    from annotation.campaign.overview import Overview
    from plumbline.errors import ConfigError

    patience = _LIVE_PATIENCE if live else _ONCE_PATIENCE
    found = [
        Overview(folder, lambda: _open(home, server, api_key_file, patience))
        for folder in _folders(home, name)
    ]
    if len(found) > 1:
        if live or html or as_json:
            named = ", ".join(overview.folder.name for overview in found)
            raise ConfigError(f"There are several campaigns in {home}: {named}. Name one with -n.")
        _list(found)
        return
    (overview,) = found
    try:
        if live:
            _follow(overview, every, html, names=names, as_json=as_json)
        else:
            _once(overview, html, names=names, as_json=as_json)
    finally:
        overview.close()


def _folders(home: Path, name: str | None) -> list[Path]:
    """Return the folder of the campaign that is named, or of all there are."""
    import difflib

    from annotation.campaign.connect import campaign_folder
    from annotation.campaign.state import campaigns
    from plumbline.errors import DataError

    parent = campaign_folder(home, "x").parent
    there = {folder.name: folder for folder in campaigns(parent)}
    if there and (name is None or name in there):
        return [there[name]] if name is not None else list(there.values())
    near = difflib.get_close_matches(name or "", there, n=1)
    raise DataError(
        f"There is no campaign {f'{name!r} ' if name else ''}in {parent}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + (f" There are: {', '.join(there)}." if there else "")
        + " 'plumbline annotate push' starts one; --home names another folder."
    )


def _list(overviews: Sequence[Overview]) -> None:
    """List campaigns as the last pull of each left them."""
    from rich.console import Console
    from rich.table import Table

    from plumbline.pages import percent

    table = Table("campaign", "pairs", "answers", "missing", "done", box=None, pad_edge=False)
    for overview in overviews:
        totals = overview.known().totals
        given = totals.submitted + totals.discarded
        counts = (totals.pairs, given, totals.open)
        table.add_row(
            overview.folder.name, *(f"{count:,}" for count in counts), percent(totals.done)
        )
    console = Console()
    console.print(table)
    console.print(
        "As of the last pull of each. Look at one: plumbline annotate status --campaign NAME",
        highlight=False,
    )


def _open(home: Path, server: str | None, api_key_file: Path | None, patience: float) -> Argilla:
    from annotation.campaign.argilla import Argilla
    from annotation.commands.campaign import connect

    return Argilla(connect(home, server, api_key_file), patience=patience)


def _once(overview: Overview, html: Path | None, *, names: bool, as_json: bool) -> None:
    from rich.console import Console

    from annotation.status_page import write_page

    look = overview.look()
    trouble = _trouble(look)
    if html is not None:
        write_page(html, look.standing, real_names=names, trouble=trouble)
    if as_json:
        _print_json(look, names=names)
    else:
        Console().print(tables(look.standing, _OLD if look.trouble else None))
        if html is not None:
            typer.echo(f"page in {html}")
    if look.trouble is not None:
        raise look.trouble


def _follow(
    overview: Overview, every: float, html: Path | None, *, names: bool, as_json: bool
) -> None:
    """Show every look until nothing waits for anybody; Ctrl-C ends it without a trace."""
    from rich.console import Console
    from rich.live import Live

    from annotation.status_page import write_page

    console = Console()
    on_terminal = console.is_terminal and not as_json
    # Transient: a table that is longer than the window is cut off while live, and whole afterwards.
    shown = Live(console=console, auto_refresh=False, transient=True) if on_terminal else None
    look: Look | None = None
    stopped = False
    try:
        if shown is not None:
            shown.start()
        for look in overview.follow(every):
            if html is not None:
                refresh = None if _ends(look) else every
                write_page(
                    html, look.standing, real_names=names, refresh=refresh, trouble=_trouble(look)
                )
            if as_json:
                _print_json(look, names=names)
            elif shown is not None:
                shown.update(tables(look.standing, _trouble(look), every), refresh=True)
            elif look.news or look.trouble:
                _print_line(look)
    except KeyboardInterrupt:
        stopped = True
    finally:
        if shown is not None:
            shown.stop()
        if look is not None and html is not None:
            # Nobody renews it any more, so no browser is told to read it again.
            write_page(html, look.standing, real_names=names, trouble=_trouble(look))
    if look is not None and not as_json:
        console.print(tables(look.standing, _trouble(look)))
    if stopped:
        typer.echo("Stopped; the same command goes on from here.", err=True)
        raise typer.Exit(130)


def _ends(look: Look) -> bool:
    return look.standing.finished and look.trouble is None


def _trouble(look: Look) -> str | None:
    if look.trouble is None:
        return None
    return f"{_OLD} {look.trouble}"


def _print_json(look: Look, *, names: bool) -> None:
    import json

    from annotation.campaign.telling import as_dict

    found = as_dict(look.standing, real_names=names) | {"trouble": _trouble(look)}
    typer.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))


def _print_line(look: Look) -> None:
    """Print one line, where no terminal can show a table that changes."""
    from annotation.campaign.telling import sentences

    first = sentences(look.standing)[0]
    typer.echo(f"{look.standing.now.astimezone():%H:%M:%S}  {_trouble(look) or first}")


def tables(standing: Standing, trouble: str | None = None, every: float | None = None) -> Group:
    """Return what a terminal shows: sentences, two tables, and what to see to."""
    from rich.console import Group
    from rich.markup import escape
    from rich.text import Text

    from annotation.campaign.telling import names_for, notes, quality_sentence, sentences

    clock = f"{standing.now.astimezone():%H:%M:%S}"
    how = f", every {every:g} s; Ctrl-C ends" if every is not None else ""
    parts: list[Text | Table] = [
        Text.from_markup(f"[bold]{escape(standing.name)}[/bold]  [dim]as of {clock}{how}[/dim]")
    ]
    if trouble is not None:
        parts.append(Text(trouble, style="yellow"))
    parts += [Text(line) for line in [*sentences(standing), quality_sentence(standing)]]
    parts += [Text(""), _progress(standing), Text(""), _quality(standing), Text("")]
    names = names_for(standing, real=True)
    parts += [Text(note, style="dim") for note in notes(standing, names)]
    return Group(*parts)


def _progress(standing: Standing) -> Table:
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    from annotation.campaign.telling import ago, pace_words, seconds_words
    from plumbline.pages import percent

    table = Table(box=None, pad_edge=False, title="Progress", title_justify="left",
                  title_style="bold")  # fmt: skip
    table.add_column("person", overflow="fold")
    table.add_column("", width=_BAR)
    for header in ("done", "answers", "disc.", "open", "hour", "day", "pace", "s each"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("last seen", no_wrap=True)

    def row(person: PersonProgress) -> None:
        of = f"/{person.assigned:,}" if person.assigned is not None else ""
        table.add_row(
            escape(person.name),
            ProgressBar(max(1, person.answers + person.open), person.answers, width=_BAR),
            percent(person.done),
            f"{person.answers:,}{of}",
            f"{person.discarded:,}",
            f"{person.open:,}",
            f"{person.last_hour:,}",
            f"{person.last_day:,}",
            pace_words(person.pace),
            seconds_words(person.pace.median_seconds),
            ago(person.last_seen, standing.now),
        )

    for person in standing.people:
        row(person)
    totals = standing.totals
    table.add_row(
        "everybody",
        ProgressBar(max(1, totals.wanted), totals.wanted - totals.open, width=_BAR),
        percent(totals.done),
        f"{totals.submitted + totals.discarded:,}",
        f"{totals.discarded:,}",
        f"{totals.open:,}",
        f"{totals.last_hour:,}",
        f"{totals.last_day:,}",
        pace_words(totals.pace),
        "",
        ago(totals.last_answer, standing.now),
        style="bold",
    )
    return table


def _quality(standing: Standing) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from annotation.agreement_report import share

    table = Table("person", "votes", "gold items right", "of", "repeats as before", "of",
                  "agrees with another", box=None, pad_edge=False, title="Quality",
                  title_justify="left", title_style="bold")  # fmt: skip
    rows = [(person.name, person.quality, "") for person in standing.people]
    for name, found, style in [*rows, ("everybody", standing.quality.everybody, "bold")]:
        table.add_row(
            escape(name),
            f"{found.votes:,}",
            share(found.gold_accuracy),
            f"{found.gold_accuracy.n:,}",
            share(found.self_consistency),
            f"{found.self_consistency.n:,}",
            share(found.agreement),
            style=style,
        )
    return table
