"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteHome = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="PLUMBLINE_LABELLING",
        help="The folder of this machine's labelling site.",
    ),
]
DEFAULT_HOME = Path("labelling")
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="ARGILLA_API_URL",
        metavar="URL",
        help="Another Argilla 2 server, instead of this machine's site.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="A file with the API key for --server; or set ARGILLA_API_KEY.",
    ),
]
