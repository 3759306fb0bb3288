"""Code in responses, run with limits: right where it prints what it should.

Each program runs in a process of its own, with limits on time, memory, processes and file sizes,
in an empty folder that is removed afterwards, without environment variables. Where Linux allows
it, also without a network. This stops accidents, and what a policy is likely to write. It is not
a wall against somebody who wants to break out: for that, run the whole command in a container.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from plumbline.data.records import Message
from plumbline.errors import ConfigError
from plumbline.runs.calls import SourceFile
from plumbline.temporary import TemporaryFolder
from reward.scorers.answers import KnownAnswers

_FENCE = re.compile(r"^```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: More output than this is not read.
_MOST_OUTPUT = 1 << 20
#: Sets the limits in the new process, and runs the program there. The limit on processes counts
#: all of a user's, and root has none; a process may end while they are counted.
_START = """\
import os, resource, runpy, sys
def is_ours(place):
    try:
        return place.is_dir() and place.stat(follow_symlinks=False).st_uid == os.geteuid()
    except OSError:
        return False
program, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory),
                   (resource.RLIMIT_FSIZE, 16 << 20), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(kind, (most, most))
if os.geteuid() != 0:
    ours = sum(is_ours(place) for place in os.scandir("/proc") if place.name.isdigit())
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = ours + 64 if hard < 0 else min(ours + 64, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
sys.argv = [program]
runpy.run_path(program, run_name="__main__")
"""


@dataclass(frozen=True)
class Limits:
    """What a program may use."""

    seconds: float = 5.0
    """Of time, and also of work of the processor."""
    memory_mb: int = 512

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory_mb < 32:
            raise ConfigError(
                f"A limit of {self.seconds:g} seconds and {self.memory_mb} MB lets no Python "
                "program end. Give more than 0 seconds, and 32 MB or more."
            )


@dataclass(frozen=True)
class Outcome:
    """What a program did: its output, and why it failed, if it did."""

    output: str
    problem: str | None


class CodeOutputScorer:
    """1 where the Python in a response prints the known answer of its prompt, 0 elsewhere.

    The code is the last fenced block, or the whole response where it has none. An answer that
    starts with ``assert`` is a test instead: it is run behind the code, and must not fail.
    """

    name = "code"

    def __init__(
        self,
        answers: SourceFile | Path,
        seconds: float = 5.0,
        memory_mb: int = 512,
        workers: int = 4,
    ) -> None:
        self._answers = KnownAnswers(answers)
        self._limits, self._workers = Limits(seconds, memory_mb), workers

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        return self._answers.problem_with(prompt)

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return 1 or 0 per response; several programs run at once."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="code") as pool:
            return list(pool.map(self._score, prompts, responses))

    def _score(self, prompt: Sequence[Message], response: str) -> float:
        code = code_in(response)
        return float(any(self._passes(code, answer) for answer in self._answers.to(prompt)))

    def _passes(self, code: str, answer: str) -> bool:
        if answer.lstrip().startswith("assert"):
            return run_python(f"{code}\n\n{answer}\n", self._limits).problem is None
        outcome = run_python(code, self._limits)
        return outcome.problem is None and _lines(outcome.output) == _lines(answer)


def code_in(response: str) -> str:
    """Return the Python of a response: its last fenced block, or all of it."""
    blocks = _FENCE.findall(response)
    return str(blocks[-1]) if blocks else response


def run_python(code: str, limits: Limits, stdin: str = "") -> Outcome:
    """Run a program with limits; return what it printed, and why it failed, if it did."""
    with TemporaryFolder() as folder:
        return _run(folder, code, limits, stdin)


def _run(folder: Path, code: str, limits: Limits, stdin: str) -> Outcome:
    program, output = folder / "program.py", folder / "output"
    program.write_text(code, encoding="utf-8", errors="backslashreplace")
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [
                *_without_network(), sys.executable, "-I", "-S", "-B", "-c", _START, str(program),
                str(int(limits.seconds) + 1), str(limits.memory_mb << 20),
            ],
            stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.DEVNULL, cwd=folder,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}, start_new_session=True,
        )  # fmt: skip
        try:
            process.communicate(stdin.encode(), timeout=limits.seconds)
            problem = _problem(process.returncode)
        except subprocess.TimeoutExpired:
            problem = f"took longer than {limits.seconds:g} s"
        finally:
            with suppress(ProcessLookupError):  # also what it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with output.open("rb") as written:
        text = written.read(_MOST_OUTPUT + 1)
    if len(text) > _MOST_OUTPUT:
        problem = problem or f"printed more than {_MOST_OUTPUT} bytes"
    return Outcome(text.decode("utf-8", "replace"), problem)


def _problem(status: int) -> str | None:
    if status == 0:
        return None
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


@cache
def _without_network() -> tuple[str, ...]:
    """Return the command that cuts a program off from the network; none where it may not."""
    command = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which(command[0]) is None:
        return ()
    tried = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if tried.returncode == 0 else ()


def network_is_cut() -> bool:
    """Return whether programs run without a network on this machine."""
    return bool(_without_network())


def _lines(text: str) -> list[str]:
    """Return the lines of a text without what cannot be seen at their ends."""
    return [line.rstrip() for line in text.strip().splitlines()]
