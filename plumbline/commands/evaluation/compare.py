"""``plumbline compare``: runs and samples of other tools on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from plumbline.errors import ConfigError

_BY = ("kl", "responses", "tokens", "steps", "seconds", "none")


def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs of recipes that train several methods.")
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
            help="What is matched: kl, responses, tokens, steps, seconds or none; with a limit: "
            "kl=4. Default limit: the most that all reached."
        ),
    ] = "kl",
    baseline: Annotated[
        str | None, typer.Option(help="The model that the others are compared with.")
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Confidence level of the intervals.")
    ] = 0.95,
    common_prompts: Annotated[
        bool, typer.Option("--common-prompts", help="Compare on the prompts that all share.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A term that may differ: reference or sampling.", metavar="TERM"),
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of the machine per hour, for the costs.")
    ] = None,
    currency: Annotated[
        str | None, typer.Option(help="Sign of the currency; $ by default.")
    ] = None,
    watts: Annotated[
        float | None,
        typer.Option(min=0, help="Power of the machine, where it does not count its energy."),
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
    """Compare policies of runs and files on one page: verdict, statistics, frontier, samples."""
    from evaluation.comparison.costs import PriceConfig
    from evaluation.comparison.publish import show
    from plumbline.terminal import Terminal

    prices = PriceConfig(
        price_per_hour=price_per_hour,
        watts=watts,
        **({} if currency is None else {"currency": currency}),
    )
    content, folder = write_comparison(
        home,
        runs or [],
        samples or [],
        budget=budget,
        baseline=baseline,
        out=out,
        title=title,
        judge=judge,
        confidence=confidence,
        common_prompts=common_prompts,
        allowed=allow or (),
        prices=prices,
    )
    show(Terminal(), content, folder)


def write_comparison(
    home: Path,
    runs: Sequence[str],
    files: Sequence[Path],
    *,
    budget: str,
    baseline: str | None,
    out: Path | None,
    title: str | None,
    judge: str | None,
    **options: Any,
) -> tuple[dict[str, Any], Path]:
    """Write the report of a comparison; return its content, and the folder that it is in."""
    from evaluation.comparison.budget_matching import BudgetConfig
    from evaluation.comparison.inputs import gather_inputs
    from evaluation.comparison.page_content import comparison_content, default_judge
    from evaluation.comparison.publish import folder_name, publish

    if not runs and not files:
        raise ConfigError("Give runs to compare, or files of samples with --samples.")
    by, limit = _budget(budget)
    inputs = gather_inputs(home, runs, files, baseline)
    content = comparison_content(
        inputs.runs,
        title=title or "Comparison of " + ", ".join([*runs, *(file.name for file in files)]),
        judge=default_judge(inputs.runs) if judge is None else judge,
        baseline=inputs.baseline,
        budget=BudgetConfig(by=by, limit=limit),
        stages=inputs.stages,
        notes=inputs.notes,
        missing=inputs.missing,
        run_settings=inputs.settings,
        of_models=not runs and inputs.has_single_models,
        **options,
    )
    folder = out or home / "comparisons" / folder_name(runs, files, budget)
    publish(content, inputs.stages, folder)
    return content, folder


def _budget(text: str) -> tuple[str, float | None]:
    by, separator, value = text.partition("=")
    if by not in _BY:
        import difflib

        close = difflib.get_close_matches(by, _BY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"--budget {text!r}: a budget is by one of {', '.join(_BY)}.{hint}")
    if not separator:
        return by, None
    try:
        limit = float(value)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(
            f"--budget {text!r}: the limit {value!r} is not a positive number. Write {by}=NUMBER."
        )
    return by, limit
