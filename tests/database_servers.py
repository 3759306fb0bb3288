"""PostgreSQL and Redis from the system's packages, in a folder of their own for the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from plumbline.ports import free_port

PASSWORD = "a secret%25/@word"  # every sign that means something in an address
IN_ADDRESS = "a%20secret%2525%2F%40word"


def missing() -> str | None:
    """Return why there are no servers here, or None."""
    if _postgresql("initdb") is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if shutil.which("redis-server") is None:
        return "Redis is not installed (apt-get install redis-server)"
    if os.geteuid() == 0 and _unprivileged() is None:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


def query(database: str, sql: str) -> str:
    """Run one statement; return what it prints."""
    command = ["psql", database, "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class DatabaseServers:
    """Both servers on ports of their own; each can be killed and started again."""

    folder: Path = field(
        default_factory=lambda: Path(tempfile.mkdtemp(prefix="plumbline-servers-"))
    )
    port: int = field(default_factory=free_port)
    redis_port: int = field(default_factory=free_port)
    _postgresql: subprocess.Popen[bytes] | None = None
    _redis: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        data, password = self.folder / "data", self.folder / "password"
        password.write_text(PASSWORD)
        for path in (data, self.folder / "redis"):
            path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            for path in (data, password):
                shutil.chown(path, _unprivileged())
        self._run(
            "initdb", "-D", data, "--username", "team", "--pwfile", password,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync",
        )  # fmt: skip

    def database(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://team:{IN_ADDRESS}@127.0.0.1:{self.port}/{name}"

    @property
    def redis(self) -> str:
        return f"redis://:{IN_ADDRESS}@127.0.0.1:{self.redis_port}/0"

    def start_postgresql(self) -> None:
        command = [
            _postgresql("postgres"), "-D", self.folder / "data", "-p", self.port, "-k", "",
            "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60",
        ]  # fmt: skip
        with (self.folder / "postgresql.log").open("ab") as log:
            self._postgresql = subprocess.Popen(
                [str(word) for word in command], stdout=log, stderr=log, user=_unprivileged()
            )
        _wait_for(self.port)

    def start_redis(self) -> None:
        command = [
            "redis-server", "--port", self.redis_port, "--bind", "127.0.0.1", "--save", "",
            "--dir", self.folder / "redis", "--requirepass", PASSWORD,
        ]  # fmt: skip
        self._redis = subprocess.Popen([str(w) for w in command], stdout=subprocess.DEVNULL)
        _wait_for(self.redis_port)

    def kill_postgresql(self) -> None:
        """End it as a power cut would: the first process and all that serve connections."""
        assert self._postgresql is not None
        import psutil

        process = psutil.Process(self._postgresql.pid)
        for each in (process, *process.children()):
            each.kill()
        self._postgresql.wait()

    def kill_redis(self) -> None:
        assert self._redis is not None
        self._redis.kill()
        self._redis.wait()

    def make_database(self, name: str) -> str:
        """Make an empty database; return its address."""
        query(self.database("postgres"), f"CREATE DATABASE {name}")
        return self.database(name)

    def ask_redis(self, *words: object) -> str:
        """Send one command; return the reply."""
        return subprocess.run(
            ["redis-cli", "-p", str(self.redis_port), *map(str, words)],
            env={**os.environ, "REDISCLI_AUTH": PASSWORD},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def close(self) -> None:
        for process in (self._postgresql, self._redis):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, name: str, *words: object) -> None:
        command = [str(_postgresql(name)), *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, user=_unprivileged())


def is_listened_to(port: int) -> bool:
    """Whether a program takes connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _postgresql(program: str) -> str | None:
    """Return a program of PostgreSQL's, which Debian keeps out of the path."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    return shutil.which(program, path=os.pathsep.join(map(str, folders))) or shutil.which(program)


def _unprivileged() -> str | None:
    """Return the user that PostgreSQL runs as, where these tests run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


def _wait_for(port: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_listened_to(port):
            return
        time.sleep(0.02)
    raise TimeoutError(f"Nothing listens on port {port}.")
