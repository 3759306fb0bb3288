"""``plumbline annotate users``: the accounts of the labelling site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, KeyFile, Server, SiteHome

if TYPE_CHECKING:
    from annotation.server.accounts import Accounts

app = typer.Typer(help="The accounts of the labelling site.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The name to sign in with.")]
FromInput = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


@app.command()
def add(
    name: Name,
    role: Annotated[
        str, typer.Option(help="annotator (labels), admin (administers workspaces) or owner.")
    ] = "annotator",
    workspace: Annotated[
        list[str] | None,
        typer.Option("--workspace", "-w", help="A workspace to join; repeat it for more."),
    ] = None,
    password_stdin: FromInput = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """Add a person, or add an existing person to workspaces."""
    accounts = _accounts(home, server, api_key_file)
    file = accounts.add(
        name, role=role, workspaces=workspace or (), password=_password(password_stdin)
    )
    if file is None:
        typer.echo(
            f"{name} has an account already and keeps the password. If nobody knows it, use: "
            f"plumbline annotate users reset {name}"
        )
    else:
        typer.echo(f"{name} can sign in. The password to hand over is in {file}")


@app.command(name="list")
def list_(
    home: SiteHome = DEFAULT_HOME, server: Server = None, api_key_file: KeyFile = None
) -> None:
    """List all accounts."""
    from rich.table import Table

    from plumbline.terminal import Terminal

    table = Table("name", "role", "workspaces", box=None, pad_edge=False)
    for account in _accounts(home, server, api_key_file).all():
        table.add_row(account.name, account.role, ", ".join(account.workspaces) or "–")
    Terminal().print(table)


@app.command()
def remove(
    name: Name,
    delete_labels: Annotated[
        bool,
        typer.Option(
            "--delete-labels",
            help="Delete the account and, with it, all of the person's answers on the server.",
        ),
    ] = False,
    home: SiteHome = DEFAULT_HOME,
    server: Server = None,
    api_key_file: KeyFile = None,
) -> None:
    """End a person's access. The labels stay, unless --delete-labels is given."""
    _accounts(home, server, api_key_file).remove(name, delete_labels=delete_labels)
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
    """Give a person a new password and API key. Old ones and open sessions end."""
    accounts = _accounts(home, server, api_key_file)
    file = accounts.reset(name, password=_password(password_stdin))
    typer.echo(f"The new password of {name} is in {file}")


@app.command()
def unlock(name: Name, home: SiteHome = DEFAULT_HOME) -> None:
    """Unlock a person who is locked out after wrong passwords."""
    from annotation.server.embedded.plumbline_site.lockout import Lockout
    from annotation.server.site_folder import Site

    Site(home).owner()
    Lockout(Site(home).attempts).forget(name)
    typer.echo(f"{name} may sign in again.")


def _accounts(home: Path, server: str | None, api_key_file: Path | None) -> Accounts:
    from annotation.server.accounts import Accounts
    from annotation.server.site_folder import Site
    from plumbline.commands.annotate.campaign import connect

    connection, site = connect(home, server, api_key_file), Site(home)
    if server is not None:
        return Accounts(connection, site.credentials)
    return Accounts(
        connection,
        site.credentials,
        page_url=site.reach().page_url,
        owner_file=site.owner_file,
    )


def _password(from_input: bool) -> str | None:
    return typer.get_text_stream("stdin").readline().rstrip("\n") if from_input else None
