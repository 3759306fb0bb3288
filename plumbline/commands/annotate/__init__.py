"""``plumbline annotate``: the labelling site, its campaigns and their labels."""

from __future__ import annotations

import typer

from plumbline.commands.annotate import (
    agreement,
    campaign,
    corrections,
    server,
    status,
    users,
    votes,
)

app = typer.Typer(
    help="Put pairs before people in Argilla, and bring their labels back.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for part in (server, campaign, corrections, status, votes, agreement):
    app.registered_commands += part.app.registered_commands
app.add_typer(users.app, name="users")
