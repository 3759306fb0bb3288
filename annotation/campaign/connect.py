"""Which server a campaign goes to, and with which API key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotation.argilla.client import Connection
from plumbline.config import Config, not_in_identity, only_when
from plumbline.errors import ConfigError
from plumbline.ports import free_port

KEY_VARIABLE = "ARGILLA_API_KEY"
_LARGEST_KEY = 10_000
_NOT_IN_IDENTITY: dict[str, Any] = {"not_in_identity": True}


class SiteConfig(Config):
    """The labelling server, and the folder of campaigns. Labels do not depend on either."""

    home: Path = not_in_identity(Path("labelling"))
    """The folder of this machine's labelling site. Campaigns are kept in it, too."""
    port: int = only_when(
        lambda config: config.server is None,
        "server to be null (this machine's own site)",
        6900,
        ge=0,
        json_schema_extra=_NOT_IN_IDENTITY,
    )
    """The port of this machine's site if a recipe has to start it. 0: any free port."""
    server: str | None = not_in_identity(None)
    """The address of another Argilla 2 server. Null: this machine's own site."""
    api_key_file: Path | None = only_when(
        lambda config: config.server is not None,
        "server (this machine's own site keeps its API key itself)",
        None,
        json_schema_extra=_NOT_IN_IDENTITY,
    )
    """A file with the API key for that server; or set ARGILLA_API_KEY."""


def connect(site: SiteConfig) -> Connection:
    """Return the address and API key of the labelling server."""
    if site.server is None:
        from annotation.server.site_folder import connection

        return connection(site.home)
    if site.api_key_file is not None:
        return Connection(site.server, _read_key(site.api_key_file))
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ConfigError(
            f"There is no API key for {site.server}. Put the key (from 'My settings' on the "
            f"labelling site) into a file and name it with --api-key-file, or set {KEY_VARIABLE}."
        )
    return Connection(site.server, key.strip())


def open_site(site: SiteConfig, say: Callable[[str], None]) -> Connection:
    """Return the address and API key of the server; start this machine's own if it is not up."""
    if site.server is None:
        from annotation.server import control
        from annotation.server.site_folder import Site, changed

        here = Site(site.home)
        if control.running(here) is None:
            port = site.port or free_port()
            server = control.up(here, changed(here.reach(), {"port": port}), say)
            say(f"the labelling site is up at {server.url}; `plumbline annotate down` stops it")
    return connect(site)


def is_up(site: SiteConfig) -> bool:
    """Return whether this machine's site runs, or another server is named."""
    from annotation.server import control
    from annotation.server.site_folder import Site

    return site.server is not None or control.running(Site(site.home)) is not None


def close_site(site: SiteConfig) -> None:
    """Stop this machine's site."""
    from annotation.server import control
    from annotation.server.site_folder import Site

    if site.server is None:
        control.down(Site(site.home))


def _read_key(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_KEY:
            raise ConfigError(f"{file} is too large to be an API key.")
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        # Only the error's type: its text may quote what is in the file.
        raise ConfigError(
            f"The API key cannot be read from {file}: {type(error).__name__}."
        ) from None
