"""``plumbline reward``: serve a scorer, score a file, audit a reward model."""

from __future__ import annotations

import typer

from plumbline.commands.reward.audit import audit
from plumbline.commands.reward.serve import serve

app = typer.Typer(
    help="Serve a reward model to several trainings, and audit it before optimising against it.",
    no_args_is_help=True,
)
app.command()(serve)
app.command()(audit)
