"""``plumbline data log | diff | use | rollback | export | steps``: versions of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.options import HOME, Home

Name = Annotated[
    str, typer.Argument(help="A dataset, by the name in its config.", show_default=False)
]
Which = Annotated[
    str,
    typer.Argument(
        help="A version: v2, or the start of its content or artefact.", show_default=False
    ),
]


def log(
    name: Annotated[str | None, typer.Argument(help="A dataset; without it, all of them.")] = None,
    home: Home = HOME,
) -> None:
    """List the versions of a dataset, the newest first; the one in use is marked."""
    from rich.table import Table

    from plumbline.terminal import Terminal
    from sft.versions.history import Dataset, all_datasets

    names = [name] if name is not None else all_datasets(home)
    if not names:
        typer.echo(f"There are no datasets in {home}. `plumbline data build CONFIG` makes one.")
    for dataset in names:
        history = Dataset(home, dataset).history()
        table = Table(
            "", dataset, "content", "built", "train", "test", "left out", "artefact", box=None,
            pad_edge=False,
        )  # fmt: skip
        for version in reversed(history.versions):
            table.add_row(
                "→" if version == history.current else "",
                version.name,
                version.content[:12],
                version.built.replace("T", " ").removesuffix("+00:00") + " UTC",
                f"{version.train_rows:,}",
                f"{version.test_rows:,}",
                f"{version.dropped_rows:,}",
                version.artifact,
            )
        Terminal().print(table)


def diff(name: Name, first: Which, second: Which, home: Home = HOME) -> None:
    """Show what differs from one version to another: rows, settings, rows left out."""
    from rich.markup import escape

    from plumbline.terminal import Terminal
    from sft.versions.differences import compare
    from sft.versions.history import Dataset

    dataset = Dataset(home, name)
    history = dataset.history()
    before, after = (history.find(version, name) for version in (first, second))
    difference = compare(dataset.artifact(before), dataset.artifact(after))
    console = Terminal()
    console.print(f"[bold]{escape(name)}[/bold] {before.name} → {after.name}", highlight=False)
    if difference.is_empty:
        console.print(f"  the same {difference.same:,} rows")
    for kind, by_split in (("added", difference.added), ("removed", difference.removed)):
        for split, count in sorted(by_split.items()):
            console.print(f"  {kind} {count:,} rows of {split}", highlight=False)
        for place in difference.examples[kind]:
            where = f"{place.split}: {place.origin}, row {place.row}: {place.beginning}"
            console.print(f"    [dim]{escape(where)}[/dim]", highlight=False)
    if difference.moved:
        console.print(f"  {difference.moved:,} rows are in another split", highlight=False)
    for setting, (was, now) in difference.settings.items():
        console.print(f"  setting {escape(f'{setting}: {was} → {now}')}", highlight=False)
    for reason, (before_rows, after_rows) in difference.reasons.items():
        counts = f"{before_rows:,} → {after_rows:,}"
        console.print(f"  left out {counts}: {escape(reason)}", highlight=False)


def use(name: Name, version: Which, home: Home = HOME) -> None:
    """Make a version the one that the dataset's name stands for."""
    from sft.versions.history import Dataset

    used = Dataset(home, name).use(version)
    typer.echo(f"{name} is now {used.name} ({used.train_rows:,} rows to train on).")


def rollback(name: Name, home: Home = HOME) -> None:
    """Return to the version that was in use before. No version is deleted."""
    from sft.versions.history import Dataset

    left, current = Dataset(home, name).rollback()
    typer.echo(
        f"{name} is {current.name} again ({current.train_rows:,} rows to train on); it was "
        f"{left.name}."
    )


def export(
    name: Annotated[str, typer.Argument(help="A dataset, or NAME@v2.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    format_name: Annotated[
        str, typer.Option("--format", help="parquet, jsonl or sharegpt.")
    ] = "jsonl",
    home: Home = HOME,
) -> None:
    """Write a version as plain files, with its card and the rows that were left out."""
    from plumbline.errors import ConfigError
    from sft.versions.export import EXPORT_FORMATS
    from sft.versions.export import export as write
    from sft.versions.history import Dataset, find_version

    try:
        EXPORT_FORMATS.check(format_name)
    except ValueError as error:
        raise ConfigError(f"--format: {error}.") from None
    version = find_version(home, name)
    if version is None:  # an error that says which datasets there are
        dataset = Dataset(home, name.partition("@")[0])
        version = dataset.artifact(dataset.history().versions[-1])
    for file in write(version, folder, format_name):
        typer.echo(str(file))


def steps(
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of docs/data.md.")
    ] = False,
) -> None:
    """List the steps of a build, with their settings."""
    from plumbline.commands import data_steps

    if as_markdown:
        typer.echo(data_steps.as_markdown())
    else:
        data_steps.show()
