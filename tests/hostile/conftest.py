"""Bad inputs through the command line itself: what comes of each is of one of a few kinds.

Inputs are made in classes, from a fixed seed. Whatever one does, it ends in under 20 seconds and
2 GiB, without a traceback, and not in silence: by an error with what to do and the exit code of its
kind, with rows counted as left out, or accepted, where nothing is wrong.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from plumbline.commands.app import main

SECONDS = 20.0
BYTES = 2 << 30


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> str:
        """Everything in one line, without the breaks of a narrow terminal."""
        return " ".join(f"{self.output} {self.errors}".split())

    def refused(self, code: int, *names: str) -> None:
        """The command ended with the code of a kind of error, and names what is wrong."""
        assert self.code == code, self
        message = self.errors.partition("Error:")[2].strip()
        assert len(message) > 20, self
        for name in names:
            assert name in " ".join(self.errors.split()), (name, self)

    def accepted(self) -> None:
        """The command did its work, and said something."""
        assert self.code == 0, self
        assert self.output.strip(), self


def _run(*arguments: str) -> Outcome:
    output, errors = _Terminal(), _Terminal()
    started = time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main(list(arguments))
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    assert time.monotonic() - started < SECONDS, arguments
    outcome = Outcome(code, output.read_all(), errors.read_all())
    for sign in ("Traceback", "did not foresee", "RecursionError", "object has no attribute"):
        assert sign not in outcome.said, outcome
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e]", outcome.said), outcome
    if code:
        said = ("Error", '"warnings"', "note ")  # data check answers, whatever the file is
        assert any(sign in outcome.said for sign in said), outcome
    return outcome


class _Terminal(io.TextIOWrapper):
    """Standard output as a terminal has it: UTF-8, which half a character is not."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def read_all(self) -> str:
        return self.buffer.getvalue().decode()


@pytest.fixture(scope="session")
def attempt():
    """Run a command as a user does; return how it ended."""
    return _run


@pytest.fixture(scope="module", autouse=True)
def memory():
    """No module of bad inputs takes more than 2 GiB."""
    if not sys.platform.startswith("linux"):
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    yield
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    assert peak < BYTES, f"{peak / 2**30:.2f} GiB"
