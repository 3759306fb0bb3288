"""Starting and stopping the labelling server of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from annotation.private_files import write_private
from annotation.server.environment import python
from annotation.server.home import Reach, Site, write_private_json
from plumbline.errors import BusyError, PlumblineError

START_SECONDS = 120
STOP_SECONDS = 20
_EMBEDDED = Path(__file__).with_name("embedded")
_LOG_LINES = 12


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    url: str
    started: float

    def memory(self) -> int:
        """Return the bytes of memory it holds."""
        import psutil

        return int(psutil.Process(self.pid).memory_info().rss)


def running(site: Site) -> Running | None:
    """Return the server that runs on a site, or None."""
    import psutil

    try:
        stored = Running(**json.loads(site.running_file.read_text()))
        # A number may be given to another process after a reboot, and a process's start time moves
        # with the clock; its command names this site. (A zombie has none.)
        command = psutil.Process(stored.pid).cmdline()
    except (FileNotFoundError, ValueError, TypeError, psutil.Error):
        return None
    return stored if command[-3:] == _command(site) else None


def up(site: Site, reach: Reach, say: Callable[[str], None] = lambda _: None) -> Running:
    """Start the server and return once people can sign in; return the one that runs already.

    Raises `PlumblineError` with what the server said where it does not come up.
    """
    reach.check()
    interpreter = python(say)
    with _alone(site):
        already = running(site)
        if already is not None:
            if reach != site.reach():
                raise BusyError(
                    f"The site in {site.home} is up at {already.url} with other settings. Stop it "
                    "first: plumbline annotate down."
                )
            return already
        _check_free(reach)
        site.prepare()
        before = site.settings_file.read_text() if site.settings_file.exists() else None
        site.write_settings(reach)
        process = _spawn(site, interpreter)
        found = Running(pid=process.pid, url=reach.local_url, started=time.time())
        try:
            # Before it answers: if this process is killed now, `down` still finds the server.
            write_private_json(site.running_file, asdict(found))
            _wait_until_it_answers(site, reach, process)
        except BaseException:
            process.kill()
            process.wait()
            site.running_file.unlink(missing_ok=True)
            # Settings that do not work are not the ones for the next time.
            if before is None:
                site.settings_file.unlink(missing_ok=True)
            else:
                write_private(site.settings_file, before)
            raise
        return found


def down(site: Site) -> bool:
    """Stop the server; return whether one ran."""
    import psutil

    with _alone(site):
        found = running(site)
        if found is None:
            site.running_file.unlink(missing_ok=True)
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(found.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        site.running_file.unlink(missing_ok=True)
        return True


def _command(site: Site) -> list[str]:
    """Return the end of the server's command, which tells it from other processes."""
    return ["-m", "plumbline_site", str(site.settings_file.resolve())]


def _spawn(site: Site, interpreter: Path) -> subprocess.Popen[bytes]:
    shutil.rmtree(site.temporary, ignore_errors=True)  # Argilla copies its page here at each start
    site.temporary.mkdir(mode=0o700)
    # Not this process's environment: an ARGILLA_… in it would be obeyed without anyone knowing.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(_EMBEDDED),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(site.temporary.resolve()),
    }
    if site.log.exists() and site.log.stat().st_size > 10_000_000:
        site.log.replace(site.log.with_suffix(".old.log"))
    with os.fdopen(os.open(site.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        log.write(f"--- start {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        log.flush()
        return subprocess.Popen(
            # -P: what lies in the folder it runs in is data, and no place to import from.
            [str(interpreter), "-P", *_command(site)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=site.home,
            start_new_session=True,  # it outlives the terminal, and Ctrl-C there
        )


def _wait_until_it_answers(site: Site, reach: Reach, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + START_SECONDS
    address = reach.local_url
    headers = {"X-Argilla-Api-Key": site.owner()["api_key"]}
    # No key is sent before the process that listens is known to be the one just started, so its
    # certificate need not prove anything.
    with httpx.Client(verify=False, trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                raise PlumblineError(
                    f"The labelling server ended with code {code} while starting. {_said(site)}"
                )
            if _listens(process.pid, reach.port):
                try:
                    if client.get(f"{address}/api/v1/me", headers=headers).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
            time.sleep(0.1)
    raise PlumblineError(
        f"The labelling server did not answer at {address} within {START_SECONDS} s, and was "
        f"stopped. {_said(site)}"
    )


def _listens(pid: int, port: int) -> bool:
    import psutil

    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(
        found.status == psutil.CONN_LISTEN and found.laddr.port == port for found in connections
    )


def _check_free(reach: Reach) -> None:
    family = socket.AF_INET6 if ":" in reach.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((reach.host, reach.port))
        except OSError as error:
            raise PlumblineError(
                f"The labelling server cannot listen on {reach.host}, port {reach.port}: "
                f"{error.strerror}. Something else may use it; choose another with --port."
            ) from None


@contextlib.contextmanager
def _alone(site: Site) -> Iterator[None]:
    """Let one command at a time start or stop a site."""
    from filelock import FileLock, Timeout

    site.home.mkdir(parents=True, exist_ok=True)
    site.home.chmod(0o700)
    try:
        with FileLock(site.home / "control.lock", timeout=START_SECONDS, mode=0o600):
            yield
    except Timeout:
        raise BusyError(
            f"Another command is starting or stopping the site in {site.home}."
        ) from None


def _said(site: Site) -> str:
    text = site.log.read_text(errors="replace") if site.log.exists() else ""
    last = text.rsplit("--- start", 1)[-1].strip().splitlines()[1:]
    shown = "\n".join(last[-_LOG_LINES:])
    return f"Its last words (all of them in {site.log}):\n{shown}" if shown else f"See {site.log}."


def describe(found: Running) -> dict[str, Any]:
    """Return what a status line says of a server."""
    return {"url": found.url, "pid": found.pid, "memory": found.memory()}
