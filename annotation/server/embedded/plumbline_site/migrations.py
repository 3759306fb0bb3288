"""Argilla's tables, made or brought to the newest form."""

from __future__ import annotations


def migrate(url: str) -> None:
    """Run Argilla's migrations on a database, by an address of SQLAlchemy without asyncio."""
    from alembic import command
    from alembic.config import Config
    from argilla_server import database

    # Argilla takes the address from its settings, in a form that psycopg2 does not read; and to
    # alembic's settings a percent sign is the start of a name.
    database.database_url_sync = lambda: url.replace("%", "%%")
    command.upgrade(Config(database.ALEMBIC_CONFIG_FILE), "head")
