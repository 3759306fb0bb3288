"""Which server a campaign goes to, and with whose key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from annotation.campaign.client import Connection
from plumbline.config import Config, not_in_identity
from plumbline.errors import ConfigError

KEY_VARIABLE = "ARGILLA_API_KEY"
_LARGEST_KEY = 10_000


class SiteConfig(Config):
    """The labelling server, and where campaigns are kept. Labels do not depend on either."""

    home: Path = not_in_identity(Path("labelling"))
    """The folder of this machine's labelling site. Campaigns are kept in it, too."""
    port: int = not_in_identity(6900, ge=0)
    """Where this machine's site listens if a recipe has to start it; 0 for any free port."""
    server: str | None = not_in_identity(None)
    """Another Argilla 2 server, by its address."""
    api_key_file: Path | None = not_in_identity(None)
    """A file with the API key for that server; or set ARGILLA_API_KEY."""


def connect(site: SiteConfig) -> Connection:
    """Return the way to the labelling server."""
    if site.server is None:
        if site.api_key_file is not None:
            raise ConfigError(
                f"--api-key-file is {site.api_key_file}, but no --server is named that it opens. "
                "This machine's own site keeps its key itself."
            )
        from annotation.server.home import connection

        return connection(site.home)
    if site.api_key_file is not None:
        return Connection(site.server, _read_key(site.api_key_file))
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ConfigError(
            f"There is no key for {site.server}. Put the API key (from 'My settings' on the "
            f"labelling site) into a file and name it with --api-key-file, or set {KEY_VARIABLE}."
        )
    return Connection(site.server, key.strip())


def open_site(site: SiteConfig, say: Callable[[str], None]) -> Connection:
    """Return the way to the labelling server; start this machine's own if it is not up."""
    if site.server is None:
        from annotation.server import control
        from annotation.server.home import Site, changed, free_port

        here = Site(site.home)
        if control.running(here) is None:
            port = site.port or free_port()
            found = control.up(here, changed(here.reach(), {"port": port}), say)
            say(f"the labelling site is up at {found.url}; `plumbline annotate down` stops it")
    return connect(site)


def is_up(site: SiteConfig) -> bool:
    """Tell whether this machine's site runs, or another server was named."""
    from annotation.server import control
    from annotation.server.home import Site

    return site.server is not None or control.running(Site(site.home)) is not None


def close_site(site: SiteConfig) -> None:
    """Stop this machine's site."""
    from annotation.server import control
    from annotation.server.home import Site

    if site.server is None:
        control.down(Site(site.home))


def campaign_folder(home: Path, name: str) -> Path:
    """Return where a campaign is kept."""
    return home / "campaigns" / name


def _read_key(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_KEY:
            raise ConfigError(f"{file} is too large to be an API key.")
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        # The error's kind alone: its text may quote what stands in the file.
        raise ConfigError(
            f"The API key cannot be read from {file}: {type(error).__name__}."
        ) from None
