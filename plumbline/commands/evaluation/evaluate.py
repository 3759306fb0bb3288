"""``plumbline evaluate``: evaluate existing models by any number of measures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.errors import ConfigError


def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="The id of an artefact, run:stage, a folder that from_pretrained reads, a hub "
            "name.",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="world (the embedded world), a file of prompts, text:FILE for perplexity, or "
            "lm-eval:NAME,NAME. May be repeated."
        ),
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        typer.Option(help="A file of prompts, the same as --task FILE.", metavar="FILE"),
    ] = None,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Measures by name, with commas, or functions of your own by dotted path. Default: "
            "see --list-measures."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The model for KL and for win rates.")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(help="A reward model; two or more make an ensemble.", metavar="MODEL"),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="gold, reward or ensemble judge by score; people or llm compare pairs."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Votes of people: a folder with labels.parquet.", metavar="FOLDER"),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=2, help="At most this many prompts of each task.")
    ] = None,
    split: Annotated[str, typer.Option(help="Rows of a file: all, held_out or train.")] = "all",
    tasks_folder: Annotated[
        Path | None, typer.Option(help="Your own tasks for lm-eval:, as YAML.", metavar="FOLDER")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; repeat it."),
    ] = None,
    judge_overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--judge-set", metavar="KEY=VALUE", help="A setting of the LLM judge, such as model."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of prompts and samples.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for the results.")
    ] = None,
    home: Annotated[
        Path,
        typer.Option("--home", envvar="PLUMBLINE_HOME", help="Where runs and artefacts are kept."),
    ] = Path("runs"),
    html: Annotated[
        bool, typer.Option("--html", help="Write a page of the results, as compare does.")
    ] = False,
    list_measures: Annotated[
        bool, typer.Option("--list-measures", help="List the measures and stop.")
    ] = False,
) -> None:
    """Evaluate models: a table here; samples.parquet, metrics.json and evaluation.md in a folder.

    Responses that were sampled before are used again, also for other measures. A setting is
    changed as in `--set evaluation.sampling.temperature=0.7`.
    """
    from plumbline.commands.evaluation import metric_tables, request, run_evaluation

    if list_measures:
        metric_tables.print_measures()
        return
    if not models:
        raise ConfigError(
            "Give one model or more: the id of an artefact, run:stage, a folder, or a hub name."
        )
    if labels is not None and len(models) != 1:
        raise ConfigError(
            "--labels hold votes on the responses of one model against the reference: give one "
            "model."
        )
    evaluate_request = request.EvaluateRequest(
        models=tuple(models),
        tasks=(*(task or ()), *map(str, prompts or ())) or ("world",),
        reference=reference,
        rewards=tuple(reward or ()),
        judge=judge,
        labels=labels,
        tasks_folder=None if tasks_folder is None else str(tasks_folder),
        judge_overrides=tuple(judge_overrides or ()),
        measures=tuple(name.strip() for name in measures.split(",")) if measures else None,
    )
    config = request.evaluate_settings(evaluate_request, count, split, seed, overrides or ())
    run_evaluation.run_evaluation(evaluate_request, config, home, out, html=html)
