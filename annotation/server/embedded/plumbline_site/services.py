"""PostgreSQL and Redis of a site for a larger team: their addresses, and whether they can be used.

The addresses may hold passwords. They come from a file that only the owner of the site can read,
and go into no log, no command and no environment that other processes can read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

OLDEST_POSTGRESQL, OLDEST_REDIS = 14, 5
_OTHER_CONNECTIONS = 10
"""Connections of PostgreSQL that are left to jobs, backups and people."""
_CONNECT_SECONDS = 5
_REDIS_PASSWORD = " Give it in the address: --redis redis://:PASSWORD@HOST:6379/0"
_TABLES = "to_regclass('users') IS NOT NULL"
_SITE = "to_regclass('plumbline_site') IS NOT NULL"


@dataclass(frozen=True)
class Services:
    """What a site for a larger team runs on."""

    database: str
    redis: str
    workers: int

    @property
    def sync_url(self) -> str:
        """The database's address for SQLAlchemy with psycopg2."""
        return "postgresql+psycopg2" + self.database[self.database.index(":") :]

    @property
    def async_url(self) -> str:
        """The database's address for SQLAlchemy with asyncpg."""
        from sqlalchemy import make_url

        url = make_url(self.sync_url).set(drivername="postgresql+asyncpg")
        mode = url.query.get("sslmode")  # asyncpg has another name for it
        if mode is not None:
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
        return str(url.render_as_string(hide_password=False))

    def queue(self, home: Path) -> str:
        """Return the name of the site's own queue; several sites may share one Redis."""
        return f"plumbline-{site_id(home)[:12]}"


def read(home: Path) -> Services | None:
    """Return what a site runs on, or None where it runs on SQLite alone."""
    file = home / "services.json"
    return Services(**json.loads(file.read_text())) if file.exists() else None


def site_id(home: Path) -> str:
    """Return a name of the site that tells nothing, and that a restored site keeps."""
    key = (home / "secrets" / "session.key").read_bytes()
    return sha256(b"plumbline-site" + key).hexdigest()[:32]


def without_password(url: str) -> str:
    """Return an address as it may be shown."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username and "@" in parts.netloc else ""
    query = "&".join(
        part for part in parts.query.split("&") if not part.lower().startswith("password=")
    )
    return urlunsplit((parts.scheme, user + place, parts.path, query, ""))


def redis_connection(services: Services, answers_within: float | None = 5) -> Any:
    """Return a client of Redis that does not wait long, so that people can label without it.

    A worker waits for its next job for hours: its client takes no limit.
    """
    import redis

    return redis.Redis.from_url(
        services.redis, socket_connect_timeout=2, socket_timeout=answers_within
    )


def problem_with_redis(services: Services) -> str | None:
    """Return why Redis cannot be used, or None."""
    import redis

    shown = without_password(services.redis)
    try:
        connection = redis_connection(services)
        connection.ping()
        about = connection.info()
    except redis.exceptions.AuthenticationError:
        has_password = urlsplit(services.redis).password is not None
        return (
            f"Redis at {shown} "
            + ("refuses the password of --redis." if has_password else "asks for a password.")
            + _REDIS_PASSWORD
        )
    except redis.exceptions.ResponseError as error:
        if "noauth" in str(error).lower() or "authentication" in str(error).lower():
            return f"Redis at {shown} asks for a password.{_REDIS_PASSWORD}"
        return f"Redis at {shown} cannot be used: {error}."
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        return (
            f"Redis does not answer at {shown} ({_one_line(error)}). Start it, or correct --redis."
        )
    version = str(about["redis_version"])
    if int(version.split(".")[0]) < OLDEST_REDIS:
        return f"Redis at {shown} is {version}, and a site needs {OLDEST_REDIS} or newer."
    if about.get("role") == "slave":
        return f"Redis at {shown} is a replica, which takes no jobs. Name its primary in --redis."
    return None


def problem_with_database(services: Services, home: Path) -> str | None:
    """Return why the database cannot be used for this site, or None."""
    try:
        import psycopg2
    except ImportError as error:
        import sys

        return (
            f"A driver of PostgreSQL is missing ({error.name}) in {sys.prefix}. Remove that "
            "folder; the next `plumbline annotate up` makes it again."
        )
    shown = without_password(services.database)
    try:
        with connected(services) as connection:
            return _problem_on(connection, services, home, shown)
    except psycopg2.OperationalError as error:
        return f"PostgreSQL at {shown} does not let the site in: {_one_line(error)}. {_hint(error)}"
    except psycopg2.Error as error:
        return f"PostgreSQL at {shown} cannot be used: {_one_line(error)}."


@contextlib.contextmanager
def connected(services: Services) -> Iterator[Any]:
    """Connect to the database, outside Argilla's pools."""
    import psycopg2

    connection = psycopg2.connect(
        services.database, connect_timeout=_CONNECT_SECONDS, application_name="plumbline"
    )
    try:
        connection.autocommit = True
        yield connection
    finally:
        connection.close()


def is_empty(services: Services) -> bool:
    """Return whether the database has no people, and so no site."""
    with connected(services) as connection:
        return _people(connection) == 0


def pool_size(services: Services) -> int:
    """Return the connections of each of a process's two pools."""
    with connected(services) as connection:
        return _pool_size(_setting(connection, "max_connections"), services.workers)


def problem_with_version(number: int, shown: str) -> str | None:
    """Return why a PostgreSQL of this version (as ``server_version_num``) cannot be used."""
    if number // 10000 >= OLDEST_POSTGRESQL:
        return None
    return (
        f"PostgreSQL at {shown} is version {number // 10000}, and a site needs "
        f"{OLDEST_POSTGRESQL} or newer."
    )


def _problem_on(connection: Any, services: Services, home: Path, shown: str) -> str | None:
    too_old = problem_with_version(connection.server_version, shown)
    if too_old is not None:
        return too_old
    if _value(connection, "SELECT pg_is_in_recovery()"):
        return f"PostgreSQL at {shown} is a replica, which cannot be written to. Name its primary."
    encoding = _value(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        return (
            f"The database at {shown} has the encoding {encoding}, which cannot hold every text. "
            "Make one with: createdb --encoding UTF8 --template template0 NAME"
        )
    if not _value(connection, "SELECT has_schema_privilege(current_schema(), 'CREATE')"):
        user = _value(connection, "SELECT current_user")
        return (
            f"The user {user} may make no tables in the database at {shown}. Make the user its "
            f"owner: ALTER DATABASE NAME OWNER TO {user}"
        )
    if not _value(connection, "SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'"):
        return f"PostgreSQL at {shown} was built without ICU, which the text search needs."
    for name in ("fsync", "full_page_writes"):
        if _value(connection, f"SHOW {name}") != "on":
            return (
                f"PostgreSQL at {shown} runs with {name} off: a power cut could lose answers that "
                f"were acknowledged. Set {name} = on in postgresql.conf."
            )
    most = _setting(connection, "max_connections")
    if _pool_size(most, services.workers) < 2:
        return (
            f"PostgreSQL at {shown} accepts {most} connections, too few for {services.workers} "
            "server processes. Raise max_connections in postgresql.conf, or lower --workers."
        )
    return _problem_with_owner(connection, home, shown)


def _problem_with_owner(connection: Any, home: Path, shown: str) -> str | None:
    """Return why the database's content is not this site's, or None."""
    from . import database

    marked = _value(connection, f"SELECT {_SITE}")
    owner = _value(connection, "SELECT id FROM plumbline_site") if marked else None
    waiting = database.is_there(home)
    if _people(connection) == 0:
        if waiting or not database.is_used(home):
            return None
        return (
            f"The database at {shown} has no people in it, and this site has been in use. Nothing "
            "was changed. Correct --database, or bring back a backup: plumbline annotate restore "
            "--replace FILE"
        )
    if owner != site_id(home):
        return (
            f"The database at {shown} holds another Argilla site, which would be mixed with this "
            "one. Make an empty one (createdb NAME) and name it in --database."
        )
    if waiting:
        return (
            f"The folder {home} holds a restored database, and the database at {shown} holds the "
            "site as it was. Nothing was changed. Make an empty one (createdb NAME) and name it in "
            "--database: the restored site is moved there."
        )
    return None


def _people(connection: Any) -> int:
    if not _value(connection, f"SELECT {_TABLES}"):
        return 0
    return int(_value(connection, "SELECT count(*) FROM users"))


def _pool_size(most: int, workers: int) -> int:
    # A process has two pools: Argilla's, and the search engine's.
    return min(15, (most - _OTHER_CONNECTIONS) // (2 * workers))


def _setting(connection: Any, name: str) -> int:
    return int(_value(connection, f"SHOW {name}"))


def _value(connection: Any, query: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return None if row is None else row[0]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _hint(error: Exception) -> str:
    text = str(error)
    if "authentication failed" in text or "no password supplied" in text:
        return "Correct the user or the password in --database."
    if "does not exist" in text:
        return "Make both first: createuser --pwprompt USER; createdb --owner USER NAME"
    if "refused" in text or "No such file" in text or "timeout" in text:
        return "Start PostgreSQL, or correct the address in --database."
    return "Correct --database."
