"""``plumbline data …``: build datasets, and try a file before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands import data_privacy, data_versions
from plumbline.commands.options import HOME, Home, Overrides

app = typer.Typer(
    no_args_is_help=True, help="Build datasets from raw files, and try files before a run."
)


@app.command()
def build(
    config: Annotated[str, typer.Argument(help="A file of settings (YAML).", show_default=False)],
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    home: Home = HOME,
) -> None:
    """Build a dataset of demonstrations from raw files, as a new version of it.

    Settings: `plumbline config build_data`. The same sources, settings and data seed give the same
    bytes.
    """
    from plumbline.commands import recipe_book
    from plumbline.commands.run_recipe import run_recipe

    run_recipe(recipe_book.find("build_data"), config, overrides or [], home, name)


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders that `datasets` reads, or datasets of the hub (org/name:split).",
            show_default=False,
        ),
    ],
    use: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="USE",
            help="What for: demonstrations, preferences, unpaired, prompts, pairs, labels or "
            "samples.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", help="A model's folder: show a row as it sees it, and count tokens."
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="PART=COLUMN",
            help="Which column holds a part of the row (prompt=question); may be repeated, or "
            "several with commas between.",
        ),
    ] = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="Read the rows as this format, or by your own module.function."
        ),
    ] = None,
    ignored: Annotated[
        str | None,
        typer.Option("--ignore", metavar="COLUMNS", help="Columns to pass over, with commas."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the same as one JSON object.")
    ] = False,
) -> None:
    """Read files as a stage would, and say what became of every row.

    The format, the rows that are left out and why, the columns that are used and not used, and one
    row as it is learnt from. Exits with 3 where a file has no row that can be used.
    """
    import json

    from plumbline.commands import data_check, data_show
    from plumbline.data.reader import DataFormatConfig

    settings = data_check.as_settings(columns, format_name, ignored)
    config = DataFormatConfig(**settings)
    checks = [data_check.check(name, use, config, model) for name in files]
    if as_json:
        answers = {result.file: result.as_dict() for result in checks}
        answer = checks[0].as_dict() if len(checks) == 1 else {"files": answers}
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        for result in checks:
            data_show.show(result)
    if not all(result.kept for result in checks):
        raise typer.Exit(3)


@app.command()
def formats(
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of docs/formats.md.")
    ] = False,
) -> None:
    """List the formats that are recognized, and the parts of a row that they may have."""
    from plumbline.commands import data_show

    if as_markdown:
        typer.echo(data_show.formats_as_markdown())
    else:
        data_show.show_formats()


@app.command()
def inspect(
    data: Annotated[
        str,
        typer.Argument(
            help="A dataset (NAME or NAME@v2), run:stage, an artefact's id, or a file.",
            show_default=False,
        ),
    ],
    use: Annotated[
        str, typer.Option("--as", help="For a file: demonstrations or preferences.")
    ] = "demonstrations",
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", help="A model's folder: tokens, and samples as it reads them."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, max=1000, help="Rows to show.")] = 20,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; by default DATA.html here.")
    ] = None,
    home: Home = HOME,
) -> None:
    """Make a page of a dataset: counts, lengths, languages, copies, personal data, samples."""
    from plumbline.commands.data_inspect import inspect as inspect_data
    from plumbline.data.reader import DataFormatConfig
    from plumbline.runs.names import safe_file_name
    from sft.inspect.page import render

    page = render(inspect_data(data, use, home, model, samples, DataFormatConfig()))
    file = output or Path(f"{safe_file_name(Path(data).name)}.html")
    file.write_text(page, encoding="utf-8")
    typer.echo(str(file))


for command in (
    data_versions.log,
    data_versions.diff,
    data_versions.use,
    data_versions.rollback,
    data_versions.export,
    data_versions.steps,
    data_privacy.encrypt,
    data_privacy.decrypt,
    data_privacy.unmask,
):
    app.command()(command)


@app.command()
def questions(
    documents: Annotated[
        list[Path], typer.Argument(help="Markdown, text, HTML, Word or PDF.", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="What writes the questions.", show_default=False),
    ],
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An OpenAI-compatible endpoint; --model is its name there."
        ),
    ] = None,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    home: Home = HOME,
) -> None:
    """Make questions and answers of documents, each with its place in the source.

    Settings: `plumbline config document_questions`. Doubtful questions are in doubtful.jsonl beside
    the others. The same command resumes.
    """
    import json

    from plumbline.commands import recipe_book
    from plumbline.commands.run_recipe import run_recipe

    files = json.dumps([str(path) for path in documents])
    writer = (
        [f"model={json.dumps(model)}"]
        if endpoint is None
        else [f"endpoint.model={json.dumps(model)}", f"endpoint.base_url={endpoint}"]
    )
    settings = [f"documents={files}", *writer, *(overrides or [])]
    run_recipe(recipe_book.find("document_questions"), None, settings, home, name)


app.command(name="new-key")(data_privacy.new_key)
