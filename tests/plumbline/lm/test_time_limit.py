"""A time limit: its error comes up in the block that took too long, and nowhere else."""

from __future__ import annotations

import ctypes
import threading
import time
from types import SimpleNamespace

import pytest

from plumbline.lm import time_limit as module
from plumbline.lm.time_limit import TimeLimitError, time_limit


def test_a_block_that_ends_as_its_time_does_waits_for_the_error(monkeypatch):
    """The watching thread has decided, and gets no time to raise it: the machine is busy."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    decided = threading.Event()

    def raise_late(*arguments):
        decided.set()
        time.sleep(0.7)
        raise_in(*arguments)

    monkeypatch.setattr(ctypes, "pythonapi", SimpleNamespace(PyThreadState_SetAsyncExc=raise_late))
    with pytest.raises(TimeLimitError), time_limit(100):
        (limit,) = module._limits
        threading.Thread(target=module._end, args=(limit,)).start()
        assert decided.wait(10)


def test_the_end_of_a_time_is_not_that_of_the_next_block():
    """The watching thread has seen that the first took too long, and then the first ended."""
    with time_limit(100):
        (first,) = module._limits
    with time_limit(100):
        module._end(first)
        time.sleep(0.01)


def test_what_takes_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LOOKS", 0.05)
    with pytest.raises(TimeLimitError), time_limit(0.1):
        while True:
            time.sleep(0.01)
