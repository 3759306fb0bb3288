"""PostgreSQL, Redis and server processes of a site for a larger team, as the user sets them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

from annotation.private_files import write_private
from annotation.server.embedded.plumbline_site.services import (
    Services,
    read,
    without_password,
)
from annotation.server.site_folder import Site
from plumbline.errors import ConfigError

WORKERS, MOST_WORKERS = 2, 64
_DATABASES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
#: A per cent sign that begins no character of an address.
_LONE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def chosen(
    stored: Services | None, database: str | None, redis: str | None, workers: int | None
) -> Services | None:
    """Return what a site is to run on: as it was, with what the user gave this time.

    None stands for SQLite. Raises `ConfigError` where something is missing or cannot be meant.
    """
    if stored is None and database is None and redis is None:
        if workers is not None and workers != 1:
            _check_workers(workers)
            raise ConfigError(
                f"--workers is {workers}, and SQLite serves one process only. Give --database "
                "postgresql://… and --redis redis://… as well."
            )
        return None
    before = stored or Services("", "", WORKERS)
    services = replace(
        before,
        database=before.database if database is None else database,
        redis=before.redis if redis is None else redis,
        workers=before.workers if workers is None else workers,
    )
    if not services.database or not services.redis:
        missing = "--redis redis://…" if services.database else "--database postgresql://…"
        raise ConfigError(f"PostgreSQL and Redis go together. Give {missing} as well.")
    _check(services.database, "--database", _DATABASES, "postgresql://USER:PASSWORD@HOST:5432/NAME")
    _check(services.redis, "--redis", _REDIS, "redis://HOST:6379/0")
    _check_workers(services.workers)
    return services


def _check_workers(workers: int) -> None:
    if not 1 <= workers <= MOST_WORKERS:
        raise ConfigError(f"--workers is {workers}; it may be 1 to {MOST_WORKERS}.")


def stored_file(site: Site) -> Path:
    """Return the file of the addresses, which only its owner can read. No backup holds it."""
    return site.home / "services.json"


def write(site: Site, services: Services | None) -> None:
    """Keep what a site runs on for its server, and for the next start."""
    file = stored_file(site)
    if services is None:
        file.unlink(missing_ok=True)
    else:
        write_private(file, json.dumps(asdict(services), indent=2) + "\n")


def kind_of_site(home: Path, server: str | None) -> str:
    """Return in words what a campaign's server is: a site of this machine, or another server."""
    if server is not None:
        return f"a server of Argilla at {server}"
    services = read(home)
    if services is None:
        return "this machine's own, on SQLite in one process"
    return f"this machine's own, on PostgreSQL and Redis in {services.workers} processes that serve"


def described(services: Services | None) -> list[tuple[str, str]]:
    """Return what a site runs on, to show: what it is, and where."""
    if services is None:
        return [("database", "SQLite, in the site's folder")]
    return [
        ("database", without_password(services.database)),
        ("jobs", f"{without_password(services.redis)}, with a worker of the site's own"),
        ("processes", f"{services.workers} that serve"),
    ]


def _check(url: str, option: str, schemes: tuple[str, ...], example: str) -> None:
    """Raise `ConfigError` where this is not an address. It is never quoted: passwords are in it."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in schemes and (parts.port is None or parts.port > 0)
    except ValueError:  # a port that is not a number, or an open bracket
        is_right = False
    if not is_right:
        raise ConfigError(f"{option} is not an address such as {example}.")
    if parts.fragment or "@" in parts.path + parts.query or _LONE_PERCENT.search(url):
        raise ConfigError(
            f"{option} has one of # / ? @ % where an address means something else by it. In a user "
            "or a password write them as %23, %2F, %3F, %40 and %25."
        )
    is_number = re.fullmatch(r"/?|/[0-9]+", parts.path)
    if option == "--redis" and parts.scheme != "unix" and not is_number:
        raise ConfigError(
            f"{option} names the database {parts.path!r}, and those of Redis have numbers: "
            f"{example}."
        )
