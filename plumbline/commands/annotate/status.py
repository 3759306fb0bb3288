"""``plumbline annotate status``: how far a campaign has come, once or live, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from annotation.campaign.argilla import Argilla
    from annotation.progress.overview import Look, Overview

app = typer.Typer()

_ONCE_PATIENCE, _LIVE_PATIENCE = 10.0, 2.0


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
    from annotation.progress.overview import Overview
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
    from plumbline.commands.annotate.campaign import connect

    return Argilla(connect(home, server, api_key_file), patience=patience)


def _once(overview: Overview, html: Path | None, *, names: bool, as_json: bool) -> None:
    from rich.console import Console

    from annotation.progress.page import write_page
    from annotation.progress.tables import tables

    look = overview.look()
    if html is not None:
        write_page(html, look.standing, real_names=names, trouble=look.warning)
    if as_json:
        _print_json(look, names=names)
    else:
        console = Console()
        console.print(tables(look.standing, console.width, look.warning))
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

    from annotation.progress.page import write_page
    from annotation.progress.tables import tables

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
                    html, look.standing, real_names=names, refresh=refresh, trouble=look.warning
                )
            if as_json:
                _print_json(look, names=names)
            elif shown is not None:
                seen = tables(look.standing, console.width, look.warning, every)
                shown.update(seen, refresh=True)
            elif look.news or look.trouble:
                _print_line(look)
    except KeyboardInterrupt:
        stopped = True
    finally:
        if shown is not None:
            shown.stop()
        if look is not None and html is not None:
            # Nobody renews it any more, so no browser is told to read it again.
            write_page(html, look.standing, real_names=names, trouble=look.warning)
    if look is not None and not as_json:
        console.print(tables(look.standing, console.width, look.warning))
    if stopped:
        typer.echo("Stopped; the same command goes on from here.", err=True)
        raise typer.Exit(130)


def _ends(look: Look) -> bool:
    return look.standing.finished and look.trouble is None


def _print_json(look: Look, *, names: bool) -> None:
    import json

    from annotation.progress.progress_text import as_dict

    found = as_dict(look.standing, real_names=names) | {"warning": look.warning}
    typer.echo(json.dumps(found, ensure_ascii=False, allow_nan=False))


def _print_line(look: Look) -> None:
    """Print one line, where no terminal can show a table that changes."""
    from annotation.progress.progress_text import sentences

    first = sentences(look.standing)[0]
    typer.echo(f"{look.standing.now.astimezone():%H:%M:%S}  {look.warning or first}")
