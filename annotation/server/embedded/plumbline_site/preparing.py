"""What is done once at every start, before anybody is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from argilla_server.contexts import accounts
from argilla_server.database import AsyncSessionLocal, async_engine
from argilla_server.enums import UserRole
from argilla_server.models import User

from . import database, jobs, postgres_tables, sessions, text_index
from .services import Services, is_empty, site_id


async def prepare(home: Path, services: Services | None) -> None:
    """Make the text index and the owner, and finish what a killed server left undone."""
    if services is None:
        await _run(*text_index.statements(), *sessions.STATEMENTS, jobs.reconcile())
    else:
        await _run(*postgres_tables.statements(), *sessions.STATEMENTS)
        if is_empty(services):
            await _fill(home, services)
        await _run(jobs.reconcile())
    await _open_to_owner(json.loads((home / "secrets" / "owner.json").read_text()))
    await async_engine.dispose()


async def _fill(home: Path, services: Services) -> None:
    """Make an empty database this site's; where the site has a file of SQLite, with its rows."""
    from .migrations import migrate
    from .moving import into_postgresql

    await _run(
        "DELETE FROM plumbline_site", f"INSERT INTO plumbline_site VALUES ('{site_id(home)}')"
    )
    if database.is_there(home):
        file = database.file_of(home)
        migrate(f"sqlite:///{file}")
        into_postgresql(file, services)


async def _run(*statements: str) -> None:
    async with async_engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def _open_to_owner(owner: dict[str, Any]) -> None:
    async with AsyncSessionLocal() as db:
        existing = await accounts.get_user_by_username(db, owner["username"])
        access = {
            "password_hash": accounts.hash_password(owner["password"]),
            "api_key": owner["api_key"],
        }
        if existing is None:
            await User.create(
                db,
                first_name=owner["username"],
                username=owner["username"],
                role=UserRole.owner,
                **access,
            )
        elif existing.api_key != owner["api_key"]:
            # A reset ended between the database and the file. The file decides: a person who can
            # read it can do anything here.
            await existing.update(db, **access)
