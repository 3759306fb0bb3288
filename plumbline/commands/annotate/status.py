"""``plumbline annotate status``: the progress of a campaign, once or live, and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from annotation.argilla.api import Argilla
    from annotation.progress.monitor import ProgressMonitor, Snapshot

app = typer.Typer()

_ONCE_PATIENCE, _LIVE_PATIENCE = 10.0, 2.0


@app.command()
def status(
    name: Annotated[
        str | None,
        typer.Option("--campaign", "-n", help="The campaign's name; not needed if there is one."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Continue until everything is answered, or Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="With --live: the update interval.")
    ] = 5.0,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page that opens offline. With --live, an open page updates itself. "
            "People appear under pseudonyms, as in exported labels.",
        ),
    ] = None,
    names: Annotated[
        bool,
        typer.Option(
            "--names",
            help="Show people's names on the page and in the JSON. The tables always show them.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object; with --live, one per line.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="Change a threshold of the alarms, such as gold_right=0.9; repeat it.",
        ),
    ] = None,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """Show progress, pace, agreement, gold accuracy and time left, with alarms about people.

    An alarm names who answers too fast for the length, prefers one side, contradicts themselves,
    fails gold items, or drifts over the day.

    New answers are pulled first. If the server does not answer, the command shows the progress at
    the last pull and exits with 1.
    """
    from annotation.progress.alarms import AlarmConfig
    from annotation.progress.monitor import ProgressMonitor
    from annotation.server.services import kind_of_site
    from plumbline.config import load
    from plumbline.errors import ConfigError

    alarms = load(AlarmConfig, None, overrides or [])
    patience = _LIVE_PATIENCE if live else _ONCE_PATIENCE
    opener = lambda: _open(home, server, api_key_file, patience)  # noqa: E731
    monitors = [ProgressMonitor(folder, opener, alarms=alarms) for folder in _folders(home, name)]
    if len(monitors) > 1:
        if live or html or as_json:
            there = ", ".join(monitor.folder.name for monitor in monitors)
            raise ConfigError(f"There are several campaigns in {home}: {there}. Name one with -n.")
        _list(monitors)
        return
    (monitor,) = monitors
    site = kind_of_site(home, server)
    try:
        if live:
            _follow(monitor, site, every, html, names=names, as_json=as_json)
        else:
            _once(monitor, site, html, names=names, as_json=as_json)
    finally:
        monitor.close()


def _folders(home: Path, name: str | None) -> list[Path]:
    """Return the folder of the campaign that is named, or of all campaigns."""
    import difflib

    from annotation.campaign.folder import campaigns
    from plumbline.errors import DataError

    parent = home / "campaigns"
    existing = {folder.name: folder for folder in campaigns(parent)}
    if existing and (name is None or name in existing):
        return [existing[name]] if name is not None else list(existing.values())
    near = difflib.get_close_matches(name or "", existing, n=1)
    raise DataError(
        f"There is no campaign {f'{name!r} ' if name else ''}in {parent}."
        + (f" Did you mean {near[0]!r}?" if near else "")
        + (f" There are: {', '.join(existing)}." if existing else "")
        + " 'plumbline annotate push' starts one; --home names another folder."
    )


def _list(monitors: Sequence[ProgressMonitor]) -> None:
    """List campaigns, each as of its last pull."""
    from rich.table import Table

    from plumbline.pages import percent
    from plumbline.terminal import Terminal

    table = Table("campaign", "pairs", "answers", "missing", "done", box=None, pad_edge=False)
    for monitor in monitors:
        totals = monitor.last_known().totals
        answers = totals.submitted + totals.discarded
        counts = (totals.pairs, answers, totals.open)
        table.add_row(
            monitor.folder.name, *(f"{count:,}" for count in counts), percent(totals.done)
        )
    console = Terminal()
    console.print(table)
    console.print(
        "As of the last pull of each. More about one: plumbline annotate status --campaign NAME",
        highlight=False,
    )


def _open(home: Path, server: str | None, api_key_file: Path | None, patience: float) -> Argilla:
    from annotation.argilla.api import Argilla
    from plumbline.commands.annotate.campaign import connect

    return Argilla(connect(home, server, api_key_file), patience=patience)


def _once(
    monitor: ProgressMonitor, site: str, html: Path | None, *, names: bool, as_json: bool
) -> None:
    from annotation.progress.status_page import write_page
    from annotation.progress.status_tables import tables
    from plumbline.terminal import Terminal

    snapshot = monitor.look()
    if html is not None:
        write_page(html, snapshot.progress, real_names=names, warning=snapshot.warning)
    if as_json:
        _print_json(snapshot, site, names=names)
    else:
        console = Terminal()
        console.print(tables(snapshot.progress, console.width, snapshot.warning, site=site))
        if html is not None:
            typer.echo(f"page in {html}")
    if snapshot.error is not None:
        raise snapshot.error


def _follow(
    monitor: ProgressMonitor,
    site: str,
    every: float,
    html: Path | None,
    *,
    names: bool,
    as_json: bool,
) -> None:
    """Show every snapshot until nothing is left to answer, or Ctrl-C."""
    from rich.live import Live

    from annotation.progress.status_page import write_page
    from annotation.progress.status_tables import tables
    from plumbline.terminal import Terminal

    console = Terminal()
    on_terminal = console.is_terminal and not as_json
    # Transient: a table that is longer than the window is cut off while live, and whole afterwards.
    view = Live(console=console, auto_refresh=False, transient=True) if on_terminal else None
    snapshot: Snapshot | None = None
    stopped = False
    try:
        if view is not None:
            view.start()
        for snapshot in monitor.follow(every):
            progress, warning = snapshot.progress, snapshot.warning
            if html is not None:
                refresh = None if _ends(snapshot) else every
                write_page(html, progress, real_names=names, refresh=refresh, warning=warning)
            if as_json:
                _print_json(snapshot, site, names=names)
            elif view is not None:
                view.update(tables(progress, console.width, warning, every, site), refresh=True)
            elif snapshot.changed or snapshot.error:
                _print_line(snapshot)
    except KeyboardInterrupt:
        stopped = True
    finally:
        if view is not None:
            view.stop()
        if snapshot is not None and html is not None:
            # Nothing updates it any more, so no browser should load it again.
            write_page(html, snapshot.progress, real_names=names, warning=snapshot.warning)
    if snapshot is not None and not as_json:
        console.print(tables(snapshot.progress, console.width, snapshot.warning, site=site))
    if stopped:
        typer.echo("Stopped. The same command resumes.", err=True)
        raise typer.Exit(130)


def _ends(snapshot: Snapshot) -> bool:
    return snapshot.progress.finished and snapshot.error is None


def _print_json(snapshot: Snapshot, site: str, *, names: bool) -> None:
    import json

    from annotation.progress.progress_text import as_dict

    values = as_dict(snapshot.progress, real_names=names)
    values |= {"site": site, "warning": snapshot.warning}
    typer.echo(json.dumps(values, ensure_ascii=False, allow_nan=False))


def _print_line(snapshot: Snapshot) -> None:
    """Print one line, where no terminal can show a table that changes."""
    from annotation.progress.progress_text import sentences

    first = sentences(snapshot.progress)[0]
    typer.echo(f"{snapshot.progress.now.astimezone():%H:%M:%S}  {snapshot.warning or first}")
