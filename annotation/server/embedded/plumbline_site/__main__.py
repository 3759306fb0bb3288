"""Start the labelling server: ``python -m plumbline_site SITE.json``.

The file names the site's folder and how it is reached. Secrets are in files of their own in that
folder. Where the server cannot start, it exits with a code other than 0, and the last line of its
output gives the reason.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from plumbline_site import database


def main() -> None:
    """Run until told to stop."""
    os.umask(0o077)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))  # one for each connection
    site = json.loads(Path(sys.argv[1]).read_text())
    home = Path(site["home"])
    with (home / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"A server is already running on {home}.")
        problem = database.problem(home)
        if problem is not None:
            sys.exit(problem)
        _configure(site, home)
        asyncio.run(_serve(site, home))


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
    from plumbline_site import engine, fixes, jobs, logs, webhook_addresses

    del engine  # registers itself
    logs.install()
    webhook_addresses.install()
    jobs.install()
    fixes.install()
    await _prepare(home)
    database.mark_as_used(home)
    rotation = asyncio.create_task(logs.keep_small(home / "server.log"))
    server = uvicorn.Server(_uvicorn_settings(site, _guarded(site, home)))
    await server.serve()
    rotation.cancel()
    if not server.started:
        sys.exit("The server could not start; the lines above say why.")


def _guarded(site: dict[str, Any], home: Path) -> Any:
    """Return Argilla's application behind everything that protects it."""
    import argilla_server
    from argilla_server._app import app
    from argilla_server.api.routes import api_v1
    from plumbline_site import page_requests, privacy, sessions
    from plumbline_site.guard import Guard, OnlyFrom, content_security_policy
    from plumbline_site.lockout import Lockout

    sessions.install(api_v1)
    privacy.install(app, api_v1)
    page_requests.install(app, api_v1)
    static = Path(argilla_server.__file__).parent / "static"
    guarded = Guard(
        app,
        hosts=site["hosts"],
        policy=content_security_policy(
            # As Argilla serves them: with the site's path, which is empty here, put in.
            page.read_text().replace("@@baseUrl@@", "")
            for page in static.glob("**/*.html")
        ),
        lockout=Lockout(home / "secrets" / "attempts.json"),
        secure=site["secure"],
        secret=(home / "secrets" / "session.key").read_text().strip().encode(),
        origins=site["origins"],
        role_of=sessions.role_of,
    )
    if not site["proxies"]:
        return guarded
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    networks = _networks(site)
    return OnlyFrom(ProxyHeadersMiddleware(guarded, networks), networks)


def _networks(site: dict[str, Any]) -> list[str]:
    """Return the proxies in the form that uvicorn reads: a network has no bits behind its mask."""
    return [str(ipaddress.ip_network(proxy, strict=False)) for proxy in site["proxies"]]


def _uvicorn_settings(site: dict[str, Any], app: Any) -> Any:
    import uvicorn
    from plumbline_site.connections import limited

    return uvicorn.Config(
        app,
        host=site["host"],
        port=site["port"],
        http=limited(_networks(site)),
        log_level="warning",
        access_log=False,
        lifespan="on",
        ssl_certfile=site["tls_certificate"],
        ssl_keyfile=site["tls_key"],
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def _on_connect(connection: Any, _: Any) -> None:
    """Let readers and the writer work at once, and report a save only when it is on the disk."""
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
    """Make the owner and the text index, and finish what a killed server left undone."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal, async_engine, sync_engine
    from argilla_server.enums import UserRole
    from argilla_server.models import User
    from plumbline_site import jobs, sessions, text_index
    from sqlalchemy import text

    # Errors of the database would quote their parameters: keys, and hashes of passwords.
    for each in (async_engine.sync_engine, sync_engine):
        each.hide_parameters = True
    owner = json.loads((home / "secrets" / "owner.json").read_text())
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
    async with async_engine.begin() as connection:
        for statement in [*text_index.statements(), *sessions.STATEMENTS, jobs.RECONCILE]:
            await connection.execute(text(statement.replace(":", "\\:")))


if __name__ == "__main__":
    main()
