"""``plumbline annotate push | pull``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from annotation.campaign.client import Connection

app = typer.Typer()


def connect(home: Path, server: str | None, api_key_file: Path | None) -> Connection:
    """Return the way to the server that the options name."""
    from annotation.server.home import connection

    return connection(home)
