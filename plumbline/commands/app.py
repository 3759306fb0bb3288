"""The command line. Only what `--help` needs is imported here; the rest where it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from plumbline.commands import annotate, chat, data, publish, reward, rollouts, train
from plumbline.commands.evaluation.compare import compare
from plumbline.commands.evaluation.convert_samples import convert_samples
from plumbline.commands.evaluation.evaluate import evaluate
from plumbline.commands.evaluation.watch import watch
from plumbline.commands.new import new
from plumbline.commands.options import HOME, ConfigName, Home, Overrides
from plumbline.commands.plan import plan
from plumbline.errors import ConfigError, PlumblineError, explain_failure, explain_system_error
from plumbline.quiet import silence_imports

app = typer.Typer(
    name="plumbline",
    help="From a base model to an aligned policy, with the evidence for how it got there.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 settings, 3 data, 4 model, 5 artefact, 6 busy, "
    "130 interrupted.",
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="A recipe by name, or the path of a script.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    home: Home = HOME,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run; by default from recipe, config and changed settings."),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            metavar="ddp|fsdp2|zero2|zero3|FILE",
            help="Start each training in several processes: each with a whole model (ddp), or with "
            "a share of it (fsdp2, or zero2 and zero3 by DeepSpeed); or as a config of accelerate "
            "says.",
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="How many processes, with --launch.")
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="How many stages at once, as their inputs are made."),
    ] = 1,
    on: Annotated[
        str | None, typer.Option(metavar="ray://…", help="Run the stages on a Ray cluster.")
    ] = None,
    machine_rank: Annotated[
        int | None,
        typer.Option(metavar="N", help="Which of several machines this is; before the config's."),
    ] = None,
    main_process_ip: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="The first of several machines; before the config's."),
    ] = None,
) -> None:
    """Run a recipe. The same command resumes a stopped run and reuses finished stages.

    Any setting of the recipe is also an option: --seed 1, --ppo.kl.target 6, --simulate.
    """
    from plumbline.commands import recipe_book
    from plumbline.commands.run_recipe import run_recipe
    from plumbline.runs.launch import Options

    settings = [*(overrides or []), *recipe_book.as_overrides(context.args)]
    options = Options(launch, processes, machine_rank, main_process_ip)
    run_recipe(recipe_book.find(recipe), config, settings, home, name, options, parallel, on)


@app.command()
def recipes() -> None:
    """List the recipes and their configs."""
    from rich.table import Table

    from plumbline.commands.recipe_book import all_recipes

    table = Table("recipe", "configs", "what it does", box=None, pad_edge=False)
    for recipe in all_recipes():
        table.add_row(recipe.name, "\n".join(recipe.configs), recipe.summary)
    _console().print(table)


@app.command()
def config(
    recipe: Annotated[str, typer.Argument(help="A recipe by name, or the path of a script.")],
    config: ConfigName = None,
    overrides: Overrides = None,
    find: Annotated[
        str | None, typer.Option(metavar="WORD", help="Only settings that mention a word.")
    ] = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only settings that differ from their default.")
    ] = False,
    essential: Annotated[
        bool, typer.Option("--essential", help="Only the settings that matter most.")
    ] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print YAML, to start a config file from.")
    ] = False,
) -> None:
    """Show the settings of a recipe with their values and what they do."""
    from plumbline.commands.recipe_book import find as find_recipe
    from plumbline.commands.settings import print_settings, print_yaml, resolved

    script = find_recipe(recipe)
    which: dict[str, Any] = {"find": find, "changed": changed, "essential": essential}
    if as_yaml:
        print_yaml(script, resolved(script, config, overrides or []), **which)
    else:
        print_settings(_console(), script, config, overrides or [], **which)


@app.command()
def runs(home: Home = HOME) -> None:
    """List runs, the newest first."""
    from rich.table import Table

    from plumbline.runs.progress import duration
    from plumbline.runs.run import all_runs
    from plumbline.terminal import column_to_copy

    records, damaged = all_runs(home)
    for name, problem in damaged.items():
        typer.secho(f"{name}: {problem}", fg="yellow", err=True)
    if not records:
        typer.echo(f"There are no runs in {home}.")
        return
    named = column_to_copy("run", (run.folder.name for run in records), _console())
    table = Table(named, "status", "started", "time", "stages", box=None, pad_edge=False)
    for run in records:
        state = run.state
        seconds = state["seconds"]
        at = ", ".join(run.making) or state["stage"]
        where = f" at {at}" if at and run.status != "finished" else ""
        table.add_row(
            run.folder.name,
            f"{run.status}{where}",
            state["started"].replace("T", " ").removesuffix("+00:00") + " UTC",
            duration(seconds) if seconds is not None else "–",
            str(len(state["stages"])),
        )
    _console().print(table)


@app.command()
def clean(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only these, by the start of their ids, also if a run may resume them."
        ),
    ] = None,
    home: Home = HOME,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what nothing resumes, instead of listing it.")
    ] = False,
    older_than: Annotated[
        float | None,
        typer.Option(
            metavar="DAYS", min=0, help="Also what a run may resume, if so old and not in use."
        ),
    ] = None,
) -> None:
    """List what stopped stages left, with sizes and ages; --delete frees what nothing resumes."""
    from plumbline.commands.clean import clean

    clean(_console(), home, ids or [], older_than, delete=delete)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A run's name, or the start of an artefact's id.")],
    home: Home = HOME,
    verify: Annotated[bool, typer.Option(help="Check every file against its SHA-256.")] = False,
) -> None:
    """Show a run's stages and lineage, or an artefact's manifest."""
    from plumbline.commands import show

    if not show.show(_console(), home, name, verify=verify):
        raise typer.Exit(5)


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option(help="Do not try to reach the hub.")] = False,
) -> None:
    """Show what this machine can do: cores, memory, GPU, packages, 4-bit models, the hub."""
    from plumbline.commands.doctor import examine

    examine(_console(), offline=offline)


app.add_typer(annotate.app, name="annotate")
app.add_typer(data.app, name="data")
app.add_typer(reward.app, name="reward")
app.add_typer(rollouts.app, name="rollouts")
app.command()(compare)
app.command()(plan)
app.command(name="convert-samples")(convert_samples)
app.command()(evaluate)
app.command()(watch)
app.command()(publish.merge)
app.command()(publish.push)
app.command()(chat.chat)
app.add_typer(train.train, name="train")
app.add_typer(new, name="new")
for command in (train.pairs, train.steps):
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        command
    )


def _version(value: bool) -> None:
    if value:
        from plumbline import __version__

        typer.echo(f"plumbline {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and the messages of libraries.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["PLUMBLINE_DEBUG"] = "1"
    else:
        silence_imports()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. An error becomes a message and an exit code, never a traceback."""
    try:
        _check_characters(sys.argv[1:] if arguments is None else arguments)
        _command_line()(args=arguments, standalone_mode=True)
    except Exception as error:
        explained = _explained(error)
        if os.environ.get("PLUMBLINE_DEBUG") == "1":
            typer.echo(explained.trace or "", err=True)
            raise
        typer.secho(f"\nError: {_plain(str(explained))}", fg="red", err=True)
        if (explained.trace or explained is not error) and "--debug" not in str(explained):
            typer.echo("For a traceback, run: plumbline --debug …", err=True)
        sys.exit(explained.exit_code)


@cache
def _command_line() -> Callable[..., Any]:
    """Return all commands with their options, read from the functions' signatures once."""
    return typer.main.get_command(app)


def _check_characters(arguments: list[str]) -> None:
    """Refuse arguments that are not UTF-8, which no file of ours can hold."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"The argument {argument!r} is not UTF-8 at character {error.start + 1}. Rename "
                "the file, or write the value in UTF-8."
            ) from None


def _explained(error: Exception) -> PlumblineError:
    """Return an error as one that a user can act on."""
    if isinstance(error, PlumblineError):
        return error
    if isinstance(error, OSError):
        return explain_system_error(error)
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # of an option
        return ConfigError("\n".join(map(_option_problem, error.errors())))
    return explain_failure(error) or PlumblineError(
        f"Something happened that Plumbline did not foresee: {type(error).__name__}: {error}. "
        "Please report it with its traceback."
    )


def _option_problem(problem: Any) -> str:
    """Return what pydantic says about a value that options gave."""
    place = ".".join(map(str, problem["loc"])) or "the options"
    return f"{place}: {str(problem['msg']).removeprefix('Value error, ')}."


def _plain(text: str) -> str:
    """Return a text that any terminal can show."""
    from plumbline.terminal import visible

    encoding = sys.stderr.encoding or "utf-8"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def _console() -> Any:
    from plumbline.terminal import Terminal

    return Terminal()
