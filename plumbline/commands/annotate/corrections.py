"""``plumbline annotate correct | corrected``: doubtful texts out to people, and back corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.annotate.campaign import Offline, Patience, connect, open_argilla
from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

app = typer.Typer()

Name = Annotated[
    str,
    typer.Option("--name", "-n", help="Names the corrections, their folder and workspace."),
]


@app.command()
def correct(
    file: Annotated[
        Path,
        typer.Argument(
            help="Rows to correct, such as doubtful.jsonl of `plumbline data questions`."
        ),
    ],
    name: Name = "questions",
    members: Annotated[
        list[str] | None,
        typer.Option("--member", "-m", help="A person to add to the queue; repeat it."),
    ] = None,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Send doubtful questions and answers to the labelling page, where people edit them.

    Nothing is sent twice; more rows extend the queue.
    """
    from annotation.corrections.corrections import corrections_folder, send
    from annotation.corrections.form import read_doubtful
    from plumbline.runs.progress import Reporter

    rows = read_doubtful(file)
    reporter = Reporter()
    site = open_argilla(connect(home, server, api_key_file), patience, reporter)
    folder = corrections_folder(home, name)
    sent = send(folder, site, rows, members=members or ())
    reporter.say(f"{sent.new} rows sent, {sent.total} in all: {site.url}")
    reporter.say(f"'plumbline annotate corrected --name {name}' brings them back")


@app.command()
def corrected(
    name: Name = "questions",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file for the rows, as JSON lines.")
    ] = Path("corrected.jsonl"),
    offline: Offline = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
    patience: Patience = 120.0,
) -> None:
    """Bring corrected questions and answers back, as a source for `plumbline data build`.

    Rows that were discarded, or that nobody has looked at yet, are not among them.
    """
    from annotation.corrections.corrections import corrections_folder, fetch, fetched_before
    from plumbline.data.records import as_json_lines
    from plumbline.runs.progress import Reporter

    reporter = Reporter()
    folder = corrections_folder(home, name)
    if offline:
        fetched = fetched_before(folder)
    else:
        site = open_argilla(connect(home, server, api_key_file), patience, reporter)
        fetched = fetch(folder, site)
    out.write_text(as_json_lines(fetched.rows), encoding="utf-8")
    counts = ", ".join(f"{count} {what}" for what, count in sorted(fetched.counts.items()))
    reporter.say(f"{len(fetched.rows)} rows in {out} ({counts})")
