"""Killing one of the processes that share a training."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from plumbline.runs.isolation import StageDiedError


def kill_at_a_checkpoint(
    run: Callable[[], object], home: Path, processes: int, at: str = "**/checkpoints/step-*"
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
        while not any(home.glob(at)) and not ended.wait(0.005):
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
