"""``plumbline compare``: runs, and samples of anyone's tool, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.errors import ConfigError

_BY = ("kl", "responses", "tokens", "steps", "seconds", "none")


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs of recipes that train by several methods.")
    ] = None,
    samples: Annotated[
        list[Path] | None,
        typer.Option(help="Samples of any tool as JSON lines; may be repeated.", metavar="FILE"),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="The score that decides; gold where there is one.")
    ] = None,
    budget: Annotated[
        str,
        typer.Option(
            help="What is matched: kl, responses, tokens, steps, seconds or none; with a limit as "
            "kl=4. Without one it is the most that all reached."
        ),
    ] = "kl",
    baseline: Annotated[
        str | None, typer.Option(help="A model in the samples to measure the others from.")
    ] = None,
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals.")] = 0.95,
    common_prompts: Annotated[
        bool, typer.Option("--common-prompts", help="Compare on the prompts that all answered.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A term that may differ: reference or sampling.", metavar="TERM"),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; by default in the home folder.")
    ] = None,
    home: Annotated[
        Path,
        typer.Option("--home", envvar="PLUMBLINE_HOME", help="Where runs and artefacts are kept."),
    ] = Path("runs"),
) -> None:
    """Compare policies of runs and files: verdict, frontier, statistics, samples, on one page."""
    runs, files = runs or [], samples or []
    if not runs and not files:
        raise ConfigError("Give runs to compare, or files of samples with --samples.")
    by, limit = _budget(budget)
    from rich.console import Console

    from evaluation.comparison.budget_matching import BudgetConfig
    from evaluation.comparison.inputs import gather
    from evaluation.comparison.page_content import build, judge_of
    from evaluation.comparison.publish import name_of, publish, show

    gathered = gather(home, runs, files, baseline)
    content = build(
        gathered.trained,
        title=title or "Comparison of " + ", ".join([*runs, *(file.name for file in files)]),
        judge=judge or judge_of(gathered.trained),
        baseline=gathered.baseline,
        budget=BudgetConfig(by=by, limit=limit),
        confidence=confidence,
        stages=gathered.stages,
        common_prompts=common_prompts,
        allowed=allow or (),
        notes=gathered.notes,
    )
    folder = out or home / "comparisons" / name_of(runs, files, budget)
    publish(content, gathered.stages, folder)
    show(Console(), content, folder)


def _budget(text: str) -> tuple[str, float | None]:
    by, given, value = text.partition("=")
    if by not in _BY:
        import difflib

        close = difflib.get_close_matches(by, _BY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"--budget {text!r}: a budget is by {', '.join(_BY)}.{hint}")
    if not given:
        return by, None
    try:
        limit = float(value)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(f"--budget {text!r}: the limit {value!r} is no positive number.")
    return by, limit
