"""``plumbline annotate up | down | backup | restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plumbline.commands.annotate.options import DEFAULT_HOME, SiteHome

app = typer.Typer()


@app.command()
def up(
    home: SiteHome = DEFAULT_HOME,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The port.  [default: 6900]")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that the site answers to; may be repeated."),
    ] = None,
    behind_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS", help="A proxy with TLS in front of the site; nobody else gets in."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="A TLS certificate (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    from_defaults: Annotated[
        bool, typer.Option("--from-defaults", help="Forget the settings of the last time.")
    ] = False,
) -> None:
    """Start the labelling site of this machine; safe to give again.

    Argilla's own server and page, on SQLite, with nothing else to install. The first time, its
    software is installed in an environment of its own. Settings are kept for the next time.
    """
    import time

    from annotation.server import control
    from annotation.server.home import Reach, Site, changed
    from plumbline.runs.progress import duration, size

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
    found = control.up(site, reach, typer.echo)
    say = typer.echo
    say(f"The labelling site is up at {reach.page_url}")
    if reach.page_url != found.url:
        say(f"  on this machine {found.url}")
    say(f"  it took         {duration(time.monotonic() - started)}")
    say(f"  memory          {size(found.memory())}")
    say(f"  owner           sign in with the name and password in {site.owner_file}")
    say("  add a labeller  plumbline annotate users add NAME")
    say("  send pairs      plumbline annotate push PAIRS")
    say("  stop            plumbline annotate down")


@app.command()
def down(home: SiteHome = DEFAULT_HOME) -> None:
    """Stop the labelling site; everything in it stays."""
    from annotation.server import control
    from annotation.server.home import Site

    stopped = control.down(Site(home))
    typer.echo(f"The site in {home} {'is down' if stopped else 'was not up'}.")


@app.command()
def backup(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The archive to write; named by the time if not given.", show_default=False
        ),
    ] = None,
    home: SiteHome = DEFAULT_HOME,
) -> None:
    """Write the whole site into one archive, also while people label."""
    import time

    from annotation.server.backup import backup as make
    from annotation.server.home import Site

    name = f"{home.resolve().name}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"
    made = make(Site(home), file or Path(name))
    typer.echo(f"{made}\nIt holds keys and labels: keep it where nobody else reads.")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="An archive by `annotate backup`.")],
    home: SiteHome = DEFAULT_HOME,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the site that is there aside.")
    ] = False,
) -> None:
    """Make the site what it was when it was backed up."""
    from annotation.server.backup import restore as bring_back
    from annotation.server.home import Site

    aside = bring_back(Site(home), file, replace=replace)
    if aside is not None:
        typer.echo(f"The site before is in {aside}.")
    typer.echo("Restored. Start it with: plumbline annotate up")
