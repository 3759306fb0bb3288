"""Start the labelling server: ``python -m plumbline_site SITE.json``.

The file says where the site is and how it is reached; secrets are in files of their own beside
it. Exits with a code other than 0, and the reason on the last line, where it cannot start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Run until told to stop."""
    os.umask(0o077)
    site = json.loads(Path(sys.argv[1]).read_text())
    home = Path(site["home"])
    with (home / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"A server is already running on {home}.")
        _check_database(home / "argilla" / "argilla.db")
        _configure(site, home)
        asyncio.run(_serve(site, home))


def _check_database(file: Path) -> None:
    """Say at once, and in words, what a migration would say late and at length."""
    if not file.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        sys.exit(
            f"The database {file} cannot be used: {error}. Nothing was changed. `plumbline "
            "annotate restore --replace FILE` brings back a backup."
        )


def _configure(site: dict[str, Any], home: Path) -> None:
    """Set what Argilla reads from the environment when it is imported."""
    os.environ |= {
        "ARGILLA_HOME_PATH": str(home / "argilla"),
        "ARGILLA_SEARCH_ENGINE": "plumbline",
        "ARGILLA_AUTH_SECRET_KEY": (home / "secrets" / "session.key").read_text().strip(),
        "ARGILLA_AUTH_OAUTH_CFG": str(home / "no-oauth.yaml"),
        "ARGILLA_CORS_ORIGINS": json.dumps(site["origins"]),
        "ARGILLA_DATABASE_SQLITE_TIMEOUT": "30",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    import fakeredis
    import redis

    redis.from_url = lambda *_, **__: fakeredis.FakeStrictRedis()


async def _serve(site: dict[str, Any], home: Path) -> None:
    import uvicorn

    (home / "argilla").mkdir(exist_ok=True)
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", _on_connect)
    await asyncio.to_thread(_migrate)
    from plumbline_site import engine, fixes, jobs, logs, privacy, sessions

    del engine  # registers itself
    logs.install()
    jobs.install()
    fixes.install()
    await _prepare(home)
    import argilla_server
    from argilla_server._app import app
    from argilla_server.api.routes import api_v1
    from plumbline_site.guard import Guard, OnlyFrom, content_security_policy
    from plumbline_site.lockout import Lockout

    sessions.install(api_v1)
    privacy.install(app, api_v1)
    static = Path(argilla_server.__file__).parent / "static"
    guarded = Guard(
        app,
        hosts=site["hosts"],
        policy=content_security_policy(
            # As Argilla serves them: it puts the site's path, here none, where they name it.
            page.read_text().replace("@@baseUrl@@", "")
            for page in static.glob("**/*.html")
        ),
        lockout=Lockout(home / "secrets" / "attempts.json"),
        secure=site["secure"],
    )
    outermost: Any = guarded
    if site["proxies"]:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        # It takes an address for a network only where nothing is set behind the mask.
        networks = [str(ipaddress.ip_network(proxy, strict=False)) for proxy in site["proxies"]]
        outermost = OnlyFrom(ProxyHeadersMiddleware(guarded, networks), networks)
    server = uvicorn.Server(
        uvicorn.Config(
            outermost,
            host=site["host"],
            port=site["port"],
            log_level="warning",
            access_log=False,
            lifespan="on",
            ssl_certfile=site["tls_certificate"],
            ssl_keyfile=site["tls_key"],
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )
    await server.serve()
    if not server.started:
        sys.exit("The server could not start; the lines above say why.")


def _on_connect(connection: Any, _: Any) -> None:
    """Let readers and the writer work at once, and call nothing saved that is not on the disk."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _migrate() -> None:
    from alembic import command
    from alembic.config import Config
    from argilla_server.database import ALEMBIC_CONFIG_FILE

    command.upgrade(Config(ALEMBIC_CONFIG_FILE), "head")


async def _prepare(home: Path) -> None:
    """Make the owner, the index and what a killed server left undone."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal, async_engine, sync_engine
    from argilla_server.enums import UserRole
    from argilla_server.models import User
    from plumbline_site import jobs, text_index
    from sqlalchemy import text

    # An error of the database would quote what it was given: keys, and passwords' hashes.
    for quoting in (async_engine.sync_engine, sync_engine):
        quoting.hide_parameters = True
    owner = json.loads((home / "secrets" / "owner.json").read_text())
    async with AsyncSessionLocal() as db:
        there = await accounts.get_user_by_username(db, owner["username"])
        access = {
            "password_hash": accounts.hash_password(owner["password"]),
            "api_key": owner["api_key"],
        }
        if there is None:
            await User.create(
                db,
                first_name=owner["username"],
                username=owner["username"],
                role=UserRole.owner,
                **access,
            )
        elif there.api_key != owner["api_key"]:
            # A reset was cut short between the database and the file. The file is what counts:
            # anyone who can read it can do anything here.
            await there.update(db, **access)
    async with async_engine.begin() as connection:
        for statement in [*text_index.statements(), jobs.RECONCILE]:
            await connection.execute(text(statement.replace(":", "\\:")))


if __name__ == "__main__":
    main()
