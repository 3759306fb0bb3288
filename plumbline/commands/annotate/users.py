"""``plumbline annotate users``: who may sign in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from annotation.server.people import People

app = typer.Typer(help="Who may sign in.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name to sign in with.")]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@app.command()
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="annotator (labels), admin (runs a workspace) or owner.")
    ] = "annotator",
    workspace: Annotated[
        list[str] | None, typer.Option("--workspace", "-w", help="May be repeated.")
    ] = None,
    password_stdin: FromInput = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """Add a person, or add workspaces to one who is there."""
    people = _people(home, server, api_key_file)
    file = people.add(
        name, role=role, workspaces=workspace or (), password=_password(password_stdin)
    )
    if file is None:
        typer.echo(
            f"{name} was there already, and keeps their password. If nobody knows it: plumbline "
            f"annotate users reset {name}"
        )
    else:
        typer.echo(f"{name} can sign in. The password to hand over is in {file}")


@app.command(name="list")
def list_(
    home: SiteHome = DEFAULT_HOME, server: Server = None, api_key_file: KeyFile = None
) -> None:
    """List everybody."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "role", "workspaces", box=None, pad_edge=False)
    for person in _people(home, server, api_key_file).all():
        table.add_row(person.name, person.role, ", ".join(person.workspaces) or "–")
    Console().print(table)


@app.command()
def remove(
    name: Name,
    delete_labels: Annotated[
        bool,
        typer.Option(
            "--delete-labels",
            help="Delete the account and, as Argilla does, every answer of theirs on the server.",
        ),
    ] = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """End a person's access. Their labels stay, unless told otherwise."""
    _people(home, server, api_key_file).remove(name, delete_labels=delete_labels)
    kept = "and their answers are deleted" if delete_labels else "and their labels stay"
    typer.echo(f"{name} can no longer sign in, {kept}.")


@app.command()
def reset(
    name: Name,
    password_stdin: FromInput = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """Give a person a new password and API key; the old ones, and open sessions, end."""
    people = _people(home, server, api_key_file)
    file = people.reset(name, password=_password(password_stdin))
    typer.echo(f"The new password of {name} is in {file}")


@app.command()
def unlock(name: Name, home: SiteHome = DEFAULT_HOME) -> None:
    """Let a person sign in again who is locked out after wrong passwords."""
    from annotation.server.embedded.plumbline_site.lockout import Lockout
    from annotation.server.home import Site

    Site(home).owner()
    Lockout(Site(home).attempts).forget(name)
    typer.echo(f"{name} may try again.")


def _people(home: Path, server: str | None, api_key_file: Path | None) -> People:
    from annotation.server.home import Site
    from annotation.server.people import People
    from plumbline.commands.annotate.campaign import connect

    connection, site = connect(home, server, api_key_file), Site(home)
    if server is not None:
        return People(connection, site.credentials)
    return People(
        connection,
        site.credentials,
        page_url=site.reach().page_url,
        owner_file=site.owner_file,
    )


def _password(from_input: bool) -> str | None:
    return typer.get_text_stream("stdin").readline().rstrip("\n") if from_input else None
