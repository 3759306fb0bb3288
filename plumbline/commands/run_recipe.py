"""Running a recipe on a terminal: what it says at the start and at the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import typer

from plumbline.commands import recipe_book
from plumbline.commands.recipe_book import Recipe
from plumbline.runs.launch import Options, how_to_launch
from plumbline.runs.meeting import gathered
from plumbline.runs.nodes import refuse_side_by_side
from plumbline.runs.progress import Reporter, duration
from plumbline.runs.run import Run
from plumbline.runs.taking_part import take_part

_REPORTS = ("report.html", "report.md", "agreement.html", "agreement.md", "summary.json")
#: Kinds of artefacts that a recipe of one stage is run for.
_RESULTS = (
    "policy", "reward-model", "process-reward-model", "classifier", "embedding-model", "pairs",
)  # fmt: skip
#: What a recipe that makes none of these is run for.
_DATASETS = ("demonstrations",)


def run_recipe(
    recipe: Recipe,
    config: str | None,
    overrides: Sequence[str],
    home: Path,
    name: str | None,
    options: Options = Options(),  # noqa: B008 - it does not change
    parallel: int = 1,
    on: str | None = None,
) -> None:
    """Run a recipe, and say where its results are.

    ``options``: how each training is started. ``parallel``: how many stages at once. ``on``: the
    Ray cluster that they run on. Where a launcher has started several processes, the first does all
    of this, and the others nothing; on several machines the first process of each takes part.
    """
    rank, launched = how_to_launch(options)
    if rank > 0:
        return
    started = time.monotonic()
    reporter = Reporter()
    place = launched.place
    try:
        if place is not None and place.number > 0:
            recipe.module()  # which may hold stages of its own
            take_part(place, launched.processes, home, reporter.say)
            return
        reporter.say(f"[bold]{recipe.name}[/bold]  {recipe.summary}")
        if place is not None:
            refuse_side_by_side(place, parallel, on)
            recipe.load(
                config, overrides
            )  # what is wrong here is said before others are waited for
            reporter.say(f"[dim]  Waits for the others of {place.machines} machines.[/dim]")
        with gathered(place, launched.processes, home, reporter.say) as nodes:
            run = recipe_book.execute(
                recipe,
                config,
                overrides,
                home,
                reporter,
                name,
                processes=launched.processes,
                sharding=launched.sharding,
                parallel=parallel,
                on=on,
                nodes=nodes,
                launch_settings=launched.settings,
            )
    except KeyboardInterrupt:  # typer would exit without a message
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to be interrupted
        typer.echo("\nStopped. The same command resumes from here.", err=True)
        raise typer.Exit(130) from None
    reporter.say(f"\nDone in {duration(time.monotonic() - started)}.")
    for path in results(run):
        reporter.say(f"  {shown(path)}")


def results(run: Run) -> list[Path]:
    """Return the files that a run ends in: its reports, else what its last stages made."""
    reports = [run.folder / name for name in _REPORTS if (run.folder / name).exists()]
    if reports:
        return reports
    kinds = [(name, artifact.kind) for name, artifact in run.stages.items()]
    results = [name for name, kind in kinds if kind in _RESULTS] or [
        name for name, kind in kinds if kind in _DATASETS
    ]
    return [run.folder / "stages" / name.replace("/", "-") for name in results]


def shown(path: Path) -> str:
    """Return a path relative to the current folder if it is inside it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
