"""Killing one of the processes that share a training."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from plumbline.runs.isolation import StageDiedError

CHECKPOINT = "**/checkpoints/step-*"


def is_there(home: Path, pattern: str = CHECKPOINT) -> bool:
    """Whether a file of that name is in a home folder, in which folders come and go meanwhile."""
    with suppress(FileNotFoundError):  # of a folder that went while it was looked into
        return any(home.glob(pattern))
    return False


def die_within_the_next_message() -> None:
    """Let the system kill this process while it says something: six bytes of it are through."""

    def send(connection: Connection, message: memoryview) -> None:
        os.write(connection.fileno(), b"\0\0\1\0{}")
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send_bytes = send  # type: ignore[attr-defined]


def kill_at_a_checkpoint(
    run: Callable[[], object], home: Path, processes: int, at: str = CHECKPOINT
) -> None:
    """Start a training, and kill its last process when there is a checkpoint.

    The process is found before, so that the training cannot end meanwhile; but one by itself after
    it, since other stages have one process as well.
    """
    ended = threading.Event()

    def newest() -> psutil.Process | None:
        with suppress(psutil.Error):  # of a process that has just ended
            for server in psutil.Process().children():
                if len(stages := server.children()) == processes:
                    return max(stages, key=lambda process: process.create_time())
        return None

    def kill() -> None:
        last = None
        while processes > 1 and (last := newest()) is None and not ended.wait(0.05):
            pass
        while not is_there(home, at) and not ended.wait(0.005):
            pass
        if processes == 1:
            last = newest()
        if last is not None:
            last.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(StageDiedError, match="killed the stage's process"):
            run()
    finally:
        ended.set()
        killer.join()
