"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HOME = Path("runs")
Home = Annotated[
    Path,
    typer.Option("--home", envvar="PLUMBLINE_HOME", help="Where runs and artefacts are kept."),
]
ConfigName = Annotated[
    str | None, typer.Option("--config", "-c", help="A config of the recipe: a name or a path.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
