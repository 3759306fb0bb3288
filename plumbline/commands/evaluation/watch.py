"""``plumbline watch``: the page of a run while it is in progress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_HOME = Path("runs")


def watch(
    run: Annotated[str, typer.Argument(help="A run's name, as 'plumbline runs' lists it.")],
    home: Annotated[
        Path,
        typer.Option("--home", envvar="PLUMBLINE_HOME", help="Where runs and artefacts are kept."),
    ] = _HOME,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to serve the page; 0 for any free port.")
    ] = 0,
    opens: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Show the report of a run live in the browser, on this machine only, until Ctrl-C.

    The page is that of the finished report. Charts, tables and responses follow the run; your
    filters and your place on the page stay. When the run ends, the page says so.
    """
    from evaluation.comparison.page_content import run_content
    from evaluation.comparison.watch import Watch

    with Watch(lambda: run_content(home, run), port=port) as watched:
        typer.echo(f"{watched.url}\nCtrl-C stops watching; the run continues.")
        if opens and _has_screen():
            import webbrowser

            webbrowser.open(watched.url)
        try:
            watched.wait()
        except KeyboardInterrupt:
            typer.echo("\nStopped watching.", err=True)


def _has_screen() -> bool:
    """Return whether a browser would open in a window and not in this terminal."""
    import os
    import sys

    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
