"""Starting and stopping the labelling server of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from annotation.private_files import write_private
from annotation.server.embedded.plumbline_site.logs import rotate
from annotation.server.embedded.plumbline_site.services import Services, read
from annotation.server.environment import EMBEDDED, python
from annotation.server.services import stored_file, write
from annotation.server.site_folder import Reach, Site, write_private_json
from plumbline.errors import BusyError, PlumblineError
from plumbline.ports import refuse_taken

START_SECONDS = 120
STOP_SECONDS = 20
_LOG_LINES = 12


@dataclass(frozen=True)
class Running:
    """A running server."""

    pid: int
    url: str
    started: float

    def memory(self) -> int:
        """Return the bytes of memory that it uses, with its further processes."""
        import psutil

        process = psutil.Process(self.pid)
        children = process.children(recursive=True)
        if not children:
            return int(process.memory_info().rss)
        total = 0
        for each in (process, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                info = each.memory_full_info()
                total += int(getattr(info, "pss", info.rss))  # what they share counts once
        return total


def running(site: Site) -> Running | None:
    """Return the server that runs on a site, or None."""
    import psutil

    try:
        stored = Running(**json.loads(site.running_file.read_text()))
        # Another process may have this number after a reboot, and a process's start time moves with
        # the clock. So its command must name this site. (A zombie has no command.)
        command = psutil.Process(stored.pid).cmdline()
    except (FileNotFoundError, ValueError, TypeError, psutil.Error):
        return None
    return stored if command[-3:] == _command(site) else None


def up(
    site: Site,
    reach: Reach,
    say: Callable[[str], None] = lambda _: None,
    services: Services | Literal["kept"] | None = "kept",
) -> Running:
    """Start the server and wait until people can sign in; return the running server.

    ``services`` is what it runs on: None for SQLite, "kept" for what it ran on before.

    Raises `PlumblineError` with the end of the log where it does not start.
    """
    reach.check()
    interpreter = python(say)
    with _exclusive(site):
        kept = read(site.home)
        wanted = kept if services == "kept" else services
        already = running(site)
        if already is not None:
            if reach != site.reach() or wanted != kept:
                raise BusyError(
                    f"The site in {site.home} is up at {already.url} with other settings. Stop it "
                    "first: plumbline annotate down."
                )
            return already
        refuse_taken(reach.host, reach.port, "The labelling server")
        site.prepare()
        files = (site.settings_file, stored_file(site))
        before = {file: file.read_text() if file.exists() else None for file in files}
        site.write_settings(reach)
        write(site, wanted)
        process = _spawn(site, interpreter)
        server = Running(pid=process.pid, url=reach.local_url, started=time.time())
        try:
            # Before it answers: if this process is killed now, `down` still finds the server.
            write_private_json(site.running_file, asdict(server))
            _wait_until_ready(site, reach, process)
        except BaseException:
            process.kill()
            process.wait()
            site.running_file.unlink(missing_ok=True)
            # Settings that do not work are not kept for the next time.
            for file, text in before.items():
                if text is None:
                    file.unlink(missing_ok=True)
                else:
                    write_private(file, text)
            raise
        return server


def down(site: Site) -> bool:
    """Stop the server; return whether one ran."""
    import psutil

    with _exclusive(site):
        server = running(site)
        if server is None:
            site.running_file.unlink(missing_ok=True)
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(server.pid)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        site.running_file.unlink(missing_ok=True)
        return True


def stay(site: Site, server: Running) -> None:
    """Wait until told to stop (ctrl-C or SIGTERM), then stop the server.

    Raises `PlumblineError` where the server ends by itself.
    """
    import psutil

    is_over = threading.Event()
    before = {
        n: signal.signal(n, lambda *_: is_over.set()) for n in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(server.pid)
            while not is_over.wait(0.5):
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(0)
                    break
        if not is_over.is_set():
            raise PlumblineError(f"The labelling server ended by itself. {_log_tail(site)}")
        down(site)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _command(site: Site) -> list[str]:
    """Return the end of the server's command, by which its process is recognised."""
    return ["-m", "plumbline_site", str(site.settings_file.resolve())]


def _spawn(site: Site, interpreter: Path) -> subprocess.Popen[bytes]:
    shutil.rmtree(site.temporary, ignore_errors=True)  # Argilla copies its page here at each start
    site.temporary.mkdir(mode=0o700)
    # Not this process's environment: an ARGILLA_… in it would change the server unnoticed.
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(EMBEDDED),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(site.temporary.resolve()),
    }
    rotate(site.log)
    with os.fdopen(os.open(site.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        log.write(f"--- start {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        log.flush()
        return subprocess.Popen(
            # -P: the folder that it runs in holds data, and nothing is imported from there.
            [str(interpreter), "-P", *_command(site)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=site.home,
            start_new_session=True,  # it keeps running without the terminal, and after Ctrl-C
        )


def _wait_until_ready(site: Site, reach: Reach, process: subprocess.Popen[bytes]) -> None:
    import httpx

    deadline = time.monotonic() + START_SECONDS
    address = reach.local_url
    headers = {"X-Argilla-Api-Key": site.owner()["api_key"]}
    # The key is sent only once the process that was just started is the one that listens, so its
    # certificate need not be checked.
    with httpx.Client(verify=False, trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline:
            code = process.poll()
            if code is not None:
                raise PlumblineError(
                    f"The labelling server stopped with code {code} while starting. "
                    f"{_log_tail(site)}"
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
        f"stopped. {_log_tail(site)}"
    )


def _listens(pid: int, port: int) -> bool:
    import psutil

    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        for connection in connections
    )


@contextlib.contextmanager
def _exclusive(site: Site) -> Iterator[None]:
    """Let only one command at a time start or stop a site."""
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


def _log_tail(site: Site) -> str:
    text = site.log.read_text(errors="replace") if site.log.exists() else ""
    last = text.rsplit("--- start", 1)[-1].strip().splitlines()[1:]
    shown = "\n".join(last[-_LOG_LINES:])
    return f"The end of its log {site.log}:\n{shown}" if shown else f"See {site.log}."
