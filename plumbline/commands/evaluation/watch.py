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
    filters and your place on the page stay. When the run ends, the page says so. At /training the
    figures of each training are curves with their healthy ranges: loss, held-out loss, gradient
    norm, size of an update, learning rate, speed, memory.
    """
    from evaluation.comparison.page_content import run_content
    from evaluation.comparison.recipe_runs import find_run, training_runs_in
    from evaluation.comparison.watch import Watch
    from plumbline.training.curves_page import training_page

    def curves() -> str:
        return training_page(find_run(home, run))

    with Watch(lambda: run_content(home, run), port=port, training=curves) as watched:
        trains = f"{watched.url}training"
        typer.echo(
            f"{watched.url}\n{trains} (curves of the trainings)\n"
            "Ctrl-C stops watching; the run continues."
        )
        if opens and _has_screen():
            import webbrowser

            compares = bool(training_runs_in(find_run(home, run))[0])
            webbrowser.open(watched.url if compares else trains)
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
