"""``plumbline annotate agreement``: agreement of people in any table of labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from annotation.agreement.report import AgreementReport

app = typer.Typer()


File = Annotated[
    Path,
    typer.Argument(
        help="CSV, TSV, JSON, JSONL or Parquet; or the folder of a labels artefact.",
        show_default=False,
    ),
]
People = Annotated[
    str | None,
    typer.Option(metavar="COLUMNS", help="One column per person, separated by commas: ana,ben,cy."),
]
Item = Annotated[
    str | None,
    typer.Option(metavar="COLUMNS", help="The columns that name the item: one, or several."),
]
Person = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="With one row per vote: the column with who voted."),
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="With one row per vote: the column of votes.")
]
Missing = Annotated[
    str | None,
    typer.Option(
        metavar="TEXTS",
        help="Texts that mean no vote, with commas (-,?), besides NA, NULL, None and the like.",
    ),
]
Ordinal = Annotated[
    str | None,
    typer.Option(
        metavar="CATEGORIES",
        help="The categories in order (bad,fair,good): adds ordinal coefficients.",
    ),
]
Resamples = Annotated[
    int, typer.Option(min=0, help="Bootstrap resamples for the intervals; 0: no intervals.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the resamples.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the same as one JSON object.")]


@app.command()
def agreement(
    file: File,
    people: People = None,
    item: Item = None,
    person: Person = None,
    label: Label = None,
    missing: Missing = None,
    ordinal: Ordinal = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Measure agreement: Cohen, Fleiss and Krippendorff, with bootstrap intervals.

    Columns that are not named are guessed where their names are clear. Votes may be missing.
    """
    import json

    from annotation.agreement.intervals import Bootstrap
    from annotation.agreement.report import report_on
    from annotation.sources.label_tables import Columns

    report = report_on(
        file,
        Columns(
            people=_names("--people", people),
            item=_names("--item", item),
            person=person,
            label=label,
        ),
        no_vote=_names("--missing", missing),
        order=_names("--ordinal", ordinal) or None,
        bootstrap=Bootstrap(resamples, seed),
    )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, allow_nan=False))
        return
    from plumbline.terminal import Terminal

    show(report, Terminal())


def show(report: AgreementReport, console: Console) -> None:
    """Print a report as tables, with notes below."""
    from rich.markup import escape
    from rich.table import Table

    for line in report.head():
        console.print(escape(line), highlight=False)
    for title, header, rows in report.tables():
        console.print()
        table = Table(
            *(escape(name) for name in header), title=title, title_justify="left", box=None,
            pad_edge=False, title_style="bold",
        )  # fmt: skip
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    if report.notes():
        console.print()
    for note in report.notes():
        console.print(escape(note), highlight=False, style="dim")


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """Return the names in one option, separated by commas."""
    names = tuple(name for part in (text or "").split(",") if (name := part.strip()))
    if text is not None and not names:
        from plumbline.errors import ConfigError

        raise ConfigError(f"{option} is {text!r}, which names nothing. Leave it out, or name some.")
    return names
