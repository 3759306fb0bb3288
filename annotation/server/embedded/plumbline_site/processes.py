"""The processes of a site for a larger team: several servers behind one socket, and a worker.

The first process reads everything once and forks the others, which share its memory. It serves
nobody itself. A process that ends is started again. If the first is killed, the system ends the
rest.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import logs
from .connections import HeldByAll
from .services import Services, redis_connection

log = logging.getLogger("plumbline.processes")

STOP_SECONDS = 15
_LOOK_SECONDS = 0.5
_QUICK_SECONDS, _MOST_QUICK = 5.0, 5
_LONGEST_PAUSE = 5.0
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


class Process:
    """One process that is kept running."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name, self._work = name, work
        self.pid, self._started, self._quick = 0, 0.0, 0
        self._not_before = 0.0

    def start(self) -> None:
        """Start it where it does not run and its turn has come."""
        if not self.pid and time.monotonic() >= self._not_before:
            self.pid, self._started = fork(self._work), time.monotonic()

    def ended(self, status: int) -> None:
        """Note its end; one that ends again and again waits longer."""
        lived = time.monotonic() - self._started
        self._quick = self._quick + 1 if lived < _QUICK_SECONDS else 0
        self._not_before = time.monotonic() + min(self._quick, _LONGEST_PAUSE)
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        log.warning("The %s ended %s and is started again.", self.name, how)

    @property
    def never_works(self) -> bool:
        """Whether it has ended at every try."""
        return self._quick >= _MOST_QUICK


def fork(work: Callable[[], None]) -> int:
    """Run work in a process of its own; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if os.getppid() == parent:  # else it was gone before this could tell
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            work()
            code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException as error:
        log.error("%s", type(error).__name__, exc_info=error)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_together() -> None:
    """Let the system end each process when the one that forked it ends, also those of the worker.

    Else a process that is left over would keep the site from starting again.
    """
    system = ctypes.CDLL(None)
    os.register_at_fork(after_in_child=lambda: system.prctl(_PARENT_DEATH, signal.SIGKILL, 0, 0, 0))


def finish(work: Callable[[], None]) -> None:
    """Run work in a process of its own to its end; exit where it fails, which it has explained."""
    _, status = os.waitpid(fork(work), 0)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status) or 1)


def bound(site: dict[str, Any]) -> socket.socket:
    """Return the socket behind which all servers stand."""
    family = socket.AF_INET6 if ":" in site["host"] else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((site["host"], site["port"]))
    listening.listen(2048)
    listening.set_inheritable(True)
    return listening


def keep(
    services: Services,
    home: Path,
    serve: Callable[[Any, HeldByAll], Any],
    listening: socket.socket,
) -> None:
    """Keep servers and worker running until told to stop."""
    from . import queue

    held = HeldByAll(services.workers)

    def server(number: int) -> Callable[[], None]:
        def work() -> None:
            held.take(number)
            asyncio.run(serve([listening], held))

        return work

    servers = [
        Process(f"server process {number + 1}", server(number))
        for number in range(services.workers)
    ]

    def do_jobs() -> None:
        listening.close()
        queue.work(services, services.queue(home))

    worker = Process("job worker", do_jobs)
    gc.collect()
    gc.freeze()  # so that a collection does not copy the memory that all share
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    _watch([*servers, worker], worker, redis_connection(services), home)


def _watch(all_of_them: list[Process], worker: Process, redis: Any, home: Path) -> None:
    last, redis_answers, next_look = _run_of(redis), True, 0.0
    while True:
        for process in all_of_them:
            process.start()
        received = signal.sigtimedwait(_SIGNALS, _LOOK_SECONDS)
        if received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT):
            _stop(all_of_them)
            return
        _collect(all_of_them)
        if any(process.never_works for process in all_of_them if process is not worker):
            _stop(all_of_them)
            sys.exit("The server processes end as soon as they start; the lines above say why.")
        if time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + 1
        logs.rotate(home / "server.log")
        run = _run_of(redis)
        if run is None and redis_answers:
            log.warning("Redis does not answer. People can label; webhooks are sent at once.")
        if run is not None and (run != last or not redis_answers):
            log.warning("Redis answers again.")
            if worker.pid:  # it starts again, too, and corrects what a killed Redis forgot
                os.kill(worker.pid, signal.SIGKILL)
        last, redis_answers = run or last, run is not None


def _run_of(redis: Any) -> str | None:
    """Return the name of this run of Redis, which is another after each start, or None."""
    from redis.exceptions import RedisError

    try:
        return str(redis.info("server")["run_id"])
    except RedisError:
        return None


def _collect(all_of_them: list[Process]) -> None:
    """Take note of all that have ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        for process in all_of_them:
            if process.pid == pid:
                process.ended(status)


def _stop(all_of_them: list[Process]) -> None:
    """End all: each finishes what it is at, for a while."""
    for process in all_of_them:
        if process.pid:
            os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for process in all_of_them:
        while process.pid:
            pid, _ = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                process.pid = 0
            elif time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
                os.waitpid(process.pid, 0)
                process.pid = 0
            else:
                time.sleep(0.05)
