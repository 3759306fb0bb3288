"""All of a site's tables from one database to the other.

A backup holds a file of SQLite in every case, and a site that grows takes its labels
along. The rows go as Argilla's own models read and write them, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .services import Services

_ROWS = 1000
_ORDERED = ("records", "responses", "questions")


def into_postgresql(file: Path, services: Services) -> None:
    """Move a site from a file of SQLite into an empty database, all of it or nothing."""
    from sqlalchemy import create_engine

    _copy(create_engine(f"sqlite:///{file}"), create_engine(services.sync_url))
    file.rename(file.with_name("argilla-before-postgresql.db"))


def into_sqlite(services: Services, file: Path) -> None:
    """Write all tables into a new file of SQLite, as they are at one moment."""
    from sqlalchemy import create_engine

    from .migrations import migrate

    migrate(f"sqlite:///{file}")
    source = create_engine(services.sync_url, isolation_level="REPEATABLE READ")
    _copy(source, create_engine(f"sqlite:///{file}"))


def _copy(source: Any, target: Any) -> None:
    """Copy all tables in one transaction, and let both databases go."""
    try:
        with source.connect() as reader, target.begin() as writer:
            _same_version(reader, writer)
            _copy_tables(reader, writer)
    finally:
        source.dispose()
        target.dispose()


def _copy_tables(reader: Any, writer: Any) -> None:
    from argilla_server.models.base import DatabaseModel
    from sqlalchemy import text

    from . import sessions

    for statement in sessions.STATEMENTS:
        writer.exec_driver_sql(statement)
    for table in DatabaseModel.metadata.sorted_tables:
        for rows in _rows(reader, table):
            writer.execute(table.insert(), rows)
    ended = [
        dict(row) for row in reader.execute(text("SELECT * FROM plumbline_signed_out")).mappings()
    ]
    if ended:
        writer.execute(
            text("INSERT INTO plumbline_signed_out VALUES (:token_hash, :expires)"), ended
        )


def _rows(reader: Any, table: Any) -> Iterator[list[dict[str, Any]]]:
    from sqlalchemy import text

    chosen = table.select()
    if table.name in _ORDERED:
        chosen = chosen.order_by(text(f"{table.name}.rowid"))
    result = reader.execution_options(stream_results=True).execute(chosen)
    for part in result.mappings().partitions(_ROWS):
        yield [dict(row) for row in part]


def _same_version(reader: Any, writer: Any) -> None:
    from sqlalchemy import text

    there = [
        connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        for connection in (reader, writer)
    ]
    if there[0] != there[1]:
        raise RuntimeError(
            f"The two databases have different versions of Argilla's tables: {' and '.join(there)}."
        )
