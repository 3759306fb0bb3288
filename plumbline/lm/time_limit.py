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
from typing import Any

_SECONDS_BETWEEN_LOOKS = 0.5

_deadlines: dict[int, float] = {}
#: The process whose watching thread runs: a fork has the variables, and no threads.
_watched: list[int] = []


class TimeLimitError(BaseException):
    """The time is up. No `Exception`, so that the code which took too long cannot swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitError` in the block where it takes longer. Limits cannot be nested."""
    if os.getpid() not in _watched:
        _watched[:] = [os.getpid()]
        _deadlines.clear()
        threading.Thread(target=_watch, daemon=True, name="time limits").start()
    thread = threading.get_ident()
    _deadlines[thread] = time.monotonic() + seconds
    try:
        yield
    finally:
        if _deadlines.pop(thread, None) is None:
            # The error is raised, or about to be: it must not come up behind the block.
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _watch() -> None:
    interpreter: Any = ctypes.pythonapi
    while True:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        now = time.monotonic()
        for thread, deadline in list(_deadlines.items()):
            if now > deadline and _deadlines.pop(thread, None) is not None:
                interpreter.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(TimeLimitError)
                )
