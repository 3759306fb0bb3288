"""``plumbline annotate up | down | backup | restore``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, SiteHome

if TYPE_CHECKING:
    from annotation.server.control import Running
    from annotation.server.site_folder import Reach, Site

app = typer.Typer()
AllowHost = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A name that the site answers to; repeat it for more."),
]
BehindProxy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ADDRESS", help="A proxy with TLS in front of the site; nobody else may connect."
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        envvar="PLUMBLINE_DATABASE",
        metavar="URL",
        help="PostgreSQL in place of SQLite, for a larger team. Other users of this machine see a "
        "password on the command line; in the variable they do not.",
    ),
]
Redis = Annotated[
    str | None,
    typer.Option(envvar="PLUMBLINE_REDIS", metavar="URL", help="Redis, which --database needs."),
]


@app.command()
def up(
    home: SiteHome = DEFAULT_HOME,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port.  [default: 6900]")] = None,
    allow_host: AllowHost = None,
    behind_proxy: BehindProxy = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A TLS certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    database: Database = None,
    redis: Redis = None,
    workers: Annotated[
        int | None, typer.Option(help="Server processes, with --database.  [default: 2]")
    ] = None,
    from_defaults: Annotated[
        bool, typer.Option("--from-defaults", help="Ignore the settings of the last start.")
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until told to stop, then stop the site.")
    ] = False,
) -> None:
    """Start this machine's labelling site; does nothing if it runs already.

    The site is Argilla's own server on SQLite, with Plumbline's labelling page. At the first start
    its software is installed in an environment of its own. Settings are kept for the next start.

    With --database and --redis it serves a larger team from several processes. A site that ran on
    SQLite takes its labels along.
    """
    import time

    from annotation.server import control
    from annotation.server.embedded.plumbline_site.services import read
    from annotation.server.services import chosen, described
    from annotation.server.site_folder import Reach, Site, changed
    from plumbline.runs.progress import duration

    started = time.monotonic()
    site = Site(home)
    reach = changed(
        Reach() if from_defaults else site.reach(),
        {
            "host": host,
            "port": port,
            "allow_hosts": tuple(allow_host or ()),
            "proxies": tuple(behind_proxy or ()),
            "tls_certificate": tls_cert,
            "tls_key": tls_key,
        },
    )
    services = chosen(None if from_defaults else read(site.home), database, redis, workers)
    server = control.up(site, reach, typer.echo, services)
    took = duration(time.monotonic() - started)
    _show(site, reach, server, [("started in", took), *described(services)])
    if foreground:
        control.stay(site, server)


def _show(site: Site, reach: Reach, server: Running, lines: list[tuple[str, str]]) -> None:
    """Print where the site is, what it runs on, and what comes next."""
    from plumbline.runs.progress import size

    typer.echo(f"The labelling site is up at {reach.page_url}")
    if reach.page_url != server.url:
        typer.echo(f"  on this machine {server.url}")
    following = [
        ("memory", size(server.memory())),
        ("owner", f"sign in with the name and password in {site.owner_file}"),
        ("add a labeller", "plumbline annotate users add NAME"),
        ("send pairs", "plumbline annotate push PAIRS"),
        ("stop", "plumbline annotate down"),
    ]
    for what, line in [*lines, *following]:
        typer.echo(f"  {what:<15} {line}")


@app.command()
def down(home: SiteHome = DEFAULT_HOME) -> None:
    """Stop the labelling site; its data stay."""
    from annotation.server import control
    from annotation.server.site_folder import Site

    stopped = control.down(Site(home))
    typer.echo(f"The site in {home} {'is stopped' if stopped else 'was not running'}.")


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The archive to write; without it, a name with the time.", show_default=False
        ),
    ] = None,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Write the whole site to one archive, also while people label."""
    import time

    from annotation.server.backup import backup as make
    from annotation.server.site_folder import Site

    name = f"{home.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    archive = make(Site(home), file or Path(name))
    typer.echo(f"{archive}\nIt holds keys and labels. Keep it where nobody else can read it.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="An archive by `annotate backup`.")],
    home: SiteHome = DEFAULT_HOME,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the existing site to another folder.")
    ] = False,
) -> None:
    """Restore the site from a backup."""
    from annotation.server.backup import restore as bring_back
    from annotation.server.site_folder import Site

    aside = bring_back(Site(home), file, replace=replace)
    if aside is not None:
        typer.echo(f"The previous site is in {aside}.")
    typer.echo("Restored. Start it with: plumbline annotate up")
