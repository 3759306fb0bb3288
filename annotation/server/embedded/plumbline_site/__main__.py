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

from plumbline_site import database, services


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
        team = services.read(home)
        if team is None:
            _run_alone(site, home)
        else:
            _run_for_team(site, home, team)


def _run_alone(site: dict[str, Any], home: Path) -> None:
    """Serve from one process, on SQLite."""
    problem = database.problem(home)
    if problem is not None:
        sys.exit(problem)
    configure(site, home, None)

    async def everything() -> None:
        await asyncio.to_thread(_migrate, None)
        _install(home, None)
        await preparing.prepare(home, None)
        database.mark_as_used(home)
        rotation = asyncio.create_task(logs.keep_small(home / "server.log"))
        await _serve(site, _guarded(site, home))
        rotation.cancel()

    from plumbline_site import logs, preparing

    asyncio.run(everything())


def _run_for_team(site: dict[str, Any], home: Path, team: services.Services) -> None:
    """Serve from several processes, on PostgreSQL and Redis."""
    if sys.platform != "linux":
        sys.exit("A site on PostgreSQL runs on Linux only. Without --database it runs here.")
    problem = services.problem_with_redis(team) or services.problem_with_database(team, home)
    if problem is not None:
        sys.exit(problem)
    configure(site, home, team)
    from plumbline_site import preparing, processes

    processes.end_together()
    listening = processes.bound(site)
    # Before any process is forked: all share what is read here, and nothing is connected yet.
    _install(home, team)
    app = _guarded(site, home, is_for_team=True)

    def prepare() -> None:
        _migrate(team)
        _install_log()
        asyncio.run(preparing.prepare(home, team))

    processes.finish(prepare)
    database.mark_as_used(home)

    async def serve(sockets: Any, held: Any) -> None:
        await _serve(site, app, sockets, held)

    processes.keep(team, home, serve, listening)


def configure(site: dict[str, Any], home: Path, team: services.Services | None) -> None:
    """Set what Argilla reads from the environment when it is imported."""
    (home / "argilla").mkdir(exist_ok=True)
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
    import redis

    if team is None:
        import fakeredis
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        event.listen(Engine, "connect", _on_connect)
        redis.from_url = lambda *_, **__: fakeredis.FakeStrictRedis()
        return
    # Argilla prints the address of Redis where Redis does not answer.
    os.environ["ARGILLA_REDIS_URL"] = services.without_password(team.redis)
    redis.from_url = lambda *_, **__: services.redis_connection(team)
    os.environ["ARGILLA_DATABASE_URL"] = team.async_url
    from argilla_server.settings import Settings

    pool = {
        "pool_size": services.pool_size(team),
        "max_overflow": 0,
        "pool_pre_ping": True,  # so that a restart of PostgreSQL fails no later request
        "connect_args": {
            "timeout": 5,
            "command_timeout": 60,
            "server_settings": {
                "application_name": "plumbline",
                # A save is reported only when it is on the disk, by default or not.
                "synchronous_commit": "on",
                "jit": "off",  # to compile a query takes longer than to answer it
            },
        },
    }
    Settings.database_engine_args = property(lambda _: pool)


def _install(home: Path, team: services.Services | None) -> None:
    """Put Plumbline's parts in the place of Argilla's."""
    from argilla_server import _app
    from argilla_server.database import async_engine, sync_engine
    from plumbline_site import away, engine, fixes, jobs, queue, tasks, webhook_addresses

    del engine  # registers itself
    _install_log()
    # Errors of the database would quote their parameters: keys, and hashes of passwords.
    for each in (async_engine.sync_engine, sync_engine):
        each.hide_parameters = True
    webhook_addresses.install()
    if team is None:
        jobs.install(tasks.in_process)
    else:
        jobs.install(queue.queued(team, team.queue(home)))
        away.install()
        fixes.install_for_team()
        # A server process that starts while Redis is away has to serve; the first one has checked.
        _app.configure_redis = lambda: None
    fixes.install()


def _install_log() -> None:
    from plumbline_site import logs

    logs.install()


async def _serve(site: dict[str, Any], app: Any, sockets: Any = None, held: Any = None) -> None:
    import uvicorn

    server = uvicorn.Server(_uvicorn_settings(site, app, held))
    await server.serve(sockets)
    if not server.started:
        sys.exit("The server could not start; the lines above say why.")


def _guarded(site: dict[str, Any], home: Path, *, is_for_team: bool = False) -> Any:
    """Return Argilla's application behind everything that protects it."""
    import argilla_server
    from argilla_server._app import app
    from argilla_server.api.routes import api_v1
    from plumbline_site import page_requests, privacy, sessions
    from plumbline_site.away import WhileAway
    from plumbline_site.guard import Guard, OnlyFrom, content_security_policy
    from plumbline_site.lockout import Lockout

    sessions.install(api_v1)
    privacy.install(app, api_v1)
    page_requests.install(app, api_v1)
    static = Path(argilla_server.__file__).parent / "static"
    guarded = Guard(
        WhileAway(app) if is_for_team else app,
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


def _uvicorn_settings(site: dict[str, Any], app: Any, held: Any = None) -> Any:
    import uvicorn
    from plumbline_site.connections import limited

    return uvicorn.Config(
        app,
        host=site["host"],
        port=site["port"],
        http=limited(_networks(site), held),
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


def _migrate(team: services.Services | None) -> None:
    from argilla_server import database as argilla
    from plumbline_site.migrations import migrate

    migrate(argilla.database_url_sync() if team is None else team.sync_url)


if __name__ == "__main__":
    main()
