"""The check that comes before the server starts: a lost or damaged database is never served.

Argilla would make a new, empty database where the file is missing or empty. Labellers would then
work on in an empty site while the labels of the team are gone.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

_RESTORE = "`plumbline annotate restore --replace FILE` brings back a backup."
_NEW = (
    "To begin again with an empty site, move the folder {home} away first; labels that were "
    "pulled are in its folder campaigns."
)


def problem(home: Path) -> str | None:
    """Return why the site's database cannot be served, or None."""
    file = file_of(home)
    if not is_there(home):
        if not is_used(home):
            return None
        state = "is empty" if file.exists() else "is missing"
        return (
            f"The database {file} {state}, and this site has been in use. Nothing was changed. "
            f"{_RESTORE} If the site ran on PostgreSQL, give --database and --redis again. "
            f"{_NEW.format(home=home)}"
        )
    try:
        with contextlib.closing(sqlite3.connect(file)) as database:
            results = [str(row[0]) for row in database.execute("PRAGMA quick_check(5)")]
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master")}
            people = (
                database.execute("SELECT count(*) FROM users").fetchone()[0]
                if "users" in tables
                else 0
            )
    except sqlite3.DatabaseError as error:
        return f"The database {file} cannot be used: {error}. Nothing was changed. {_RESTORE}"
    if results != ["ok"]:
        return (
            f"The database {file} is damaged: {'; '.join(results)}. Nothing was changed. {_RESTORE}"
        )
    if people == 0 and is_used(home):
        return (
            f"The database {file} has no people in it, and this site has been in use. Nothing was "
            f"changed. {_RESTORE} {_NEW.format(home=home)}"
        )
    return None


def file_of(home: Path) -> Path:
    """Return the file of the database."""
    return home / "argilla" / "argilla.db"


def is_there(home: Path) -> bool:
    """Return whether a site has a database of SQLite that holds anything."""
    file = file_of(home)
    return file.exists() and file.stat().st_size > 0


def mark_as_used(home: Path) -> None:
    """Note that the site has a database. Called once the database has its owner."""
    _marker(home).touch(mode=0o600)


def is_used(home: Path) -> bool:
    """Return whether a server ever ran here; sites of older versions have no marker."""
    return _marker(home).exists() or any(
        any(folder.iterdir())
        for folder in (home / "credentials", home / "campaigns")
        if folder.is_dir()
    )


def _marker(home: Path) -> Path:
    return home / "has-database"
