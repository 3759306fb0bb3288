"""A time limit for Python that others wrote, such as a chat template with a loop without an end.

One thread watches all limits of a process. It raises an error in the thread that took too long, at
the next instruction of Python there; a single call into C is not interrupted.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_SECONDS_BETWEEN_LOOKS = 0.5
_MOMENT = 0.01


class TimeLimitError(BaseException):
    """The time is up. No `Exception`, so that the code which took too long cannot swallow it."""


@dataclass(eq=False)
class _Limit:
    """The limit of one block, known by itself: its thread may have begun another one."""

    thread: int
    deadline: float
    is_raised: bool = False


#: Limits of blocks that run. Who takes one out decides how it ends: its block, or the time.
_limits: dict[_Limit, None] = {}
#: The process whose watching thread runs: a fork has the variables, and no threads.
_watched: list[int] = []


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block where it takes longer. Limits cannot be nested."""
    if os.getpid() not in _watched:
        _watched[:] = [os.getpid()]
        _limits.clear()
        threading.Thread(target=_watch, daemon=True, name="time limits").start()
    limit = _Limit(threading.get_ident(), time.monotonic() + seconds)
    _limits[limit] = None
    try:
        yield
    finally:
        if not _take(limit):
            # The error is raised, or about to be: it must not come up behind the block.
            while not limit.is_raised:
                time.sleep(_MOMENT)
            time.sleep(_MOMENT)


def _take(limit: _Limit) -> bool:
    """Return whether this call is the one that takes a limit out."""
    return _limits.pop(limit, limit) is None


def _watch() -> None:
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        for limit in list(_limits):
            if now > limit.deadline:
                _end(limit)


def _end(limit: _Limit) -> None:
    """Raise the error in the thread of a block that still runs."""
    if _take(limit):
        interpreter: Any = ctypes.pythonapi
        interpreter.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(limit.thread), ctypes.py_object(TimeLimitError)
        )
        limit.is_raised = True
