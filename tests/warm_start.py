"""Commands of the command line, started in a moment: forks of a process that has imported it all.

A command and the server of its stages import the same libraries for eight seconds each time, and
the tests start dozens. Here one process imports them once. Each command is a fork of it: a process
with its own id, folder, environment and output, which is killed and watched as any other, and
whose server of stages is a process as well. What a start by itself does is tested where it
matters: ``python -m plumbline`` makes the chain with which the killed ones are compared.

Run as a script this is that process; ``tests/warm_client.py`` asks it for a command, too.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any

#: Variable that says where the process waits that all of pytest's processes share.
ADDRESS = "PLUMBLINE_TESTS_WARM_START"
#: Names that begin so are read when a library is imported: a fork cannot have another value.
_READ_AT_IMPORT = (
    "HF_HUB",
    "HF_ENDPOINT",
    "HF_HOME",
    "OMP_",
    "CUDA_",
    "PYTHONHASHSEED",
    "TRANSFORMERS_",
)
_LONGEST = 2**20  # of a request, in bytes


class Command:
    """A command that runs, used as a `subprocess.Popen` of texts is."""

    def __init__(self, connection: socket.socket, streams: list[int]) -> None:
        self._connection = connection
        self.args = "plumbline"
        self.pid = int(_first_line(connection))
        self.returncode: int | None = None
        self.stdout, *others = (os.fdopen(end, encoding="utf-8") for end in streams)
        self.stderr = others[0] if others else None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Wait for the end and return what was printed."""
        texts: dict[int, str] = {}
        streams = [stream for stream in (self.stdout, self.stderr) if stream is not None]
        readers = [
            threading.Thread(
                target=lambda at, one: texts.__setitem__(at, one.read()), args=pair, daemon=True
            )
            for pair in enumerate(streams)
        ]
        deadline = time.monotonic() + (timeout if timeout is not None else 3600)
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(0.1, deadline - time.monotonic()))
        for stream in streams:
            stream.close()
        return texts[0], texts.get(1)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._connection.settimeout(timeout if timeout != 0.0 else 1e-4)
            try:
                said = self._connection.recv(64)
            except TimeoutError:
                return None
            self.returncode = int(said) if said else -signal.SIGKILL
            self._connection.close()
        return self.returncode


def _first_line(connection: socket.socket) -> bytes:
    """Return the first line, and leave what follows: a short command may have ended by now."""
    line = b""
    while not line.endswith(b"\n"):
        read = connection.recv(1)
        if not read:
            raise ChildProcessError("the process that commands are forks of has ended")
        line += read
    return line


class WarmStart:
    """The process from which commands are forked; the first command starts it, or `begin` does.

    ``environment`` is for all of them, beside the variables of this process. ``address``: where
    such a process waits that somebody else has started, with the same variables.
    """

    def __init__(self, address: str | None = None, **environment: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._address = address
        self._environment = {**os.environ, **environment}

    def start(
        self,
        *arguments: str,
        cwd: Path | str = ".",
        script: Path | None = None,
        one_stream: bool = False,
        new_session: bool = False,
        **environment: str,
    ) -> Command:
        """Start ``plumbline``, or a Python script, with arguments.

        ``one_stream``: errors go where the output does.
        """
        kept = [name for name in environment if name.startswith(_READ_AT_IMPORT)]
        if any(environment[name] != self._environment.get(name) for name in kept):
            raise ValueError(f"{kept} are read at import: use a WarmStart with these values")
        self.begin()
        assert self._control is not None
        ours, theirs = socket.socketpair()
        pipes = [os.pipe() for _ in range(1 if one_stream else 2)]
        request = {
            "arguments": arguments,
            "script": None if script is None else str(script),
            "cwd": str(Path(cwd).resolve()),
            "environment": {**self._environment, **environment},
            "new_session": new_session,
        }
        writing = [pipe[1] for pipe in pipes]
        message = json.dumps(request).encode()
        assert len(message) < _LONGEST
        socket.send_fds(self._control, [message], [theirs.fileno(), writing[0], writing[-1]])
        theirs.close()
        for end in writing:
            os.close(end)
        return Command(ours, [pipe[0] for pipe in pipes])

    def run(
        self, *arguments: str, timeout: float = 300, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run ``plumbline``, or a Python script, to its end; kill it where it takes too long."""
        process = self.start(*arguments, **options)  # type: ignore[arg-type]
        try:
            printed, errors = process.communicate(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(arguments, process.wait(), printed, errors or "")

    def begin(self) -> str:
        """Start the process, or meet it; return its address."""
        if self._control is None:
            if self._address is None:
                self._start_process()
            else:
                self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
                self._control.connect(self._address)
        assert self._address is not None
        return self._address

    def close(self) -> None:
        """End the process, if it was started here; commands that run go on."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()
            assert self._address is not None
            Path(self._address).unlink()
            Path(self._address).parent.rmdir()

    def _start_process(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        self._address = f"{tempfile.mkdtemp(prefix='warm-')}/socket"
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self._address)
            listening.listen()
            ends = (theirs.fileno(), listening.fileno())
            self._process = subprocess.Popen(
                [sys.executable, __file__, *map(str, ends)],
                env=self._environment,
                cwd=Path(__file__).resolve().parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=ends,
            )


def serve(control: socket.socket, listening: socket.socket) -> str | None:
    """Fork a command at each request; return in each command its script, and never here.

    Ends when nobody holds the other end of ``control`` any more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that wait for the commands
    selector = DefaultSelector()
    for end in (control, listening):
        selector.register(end, EVENT_READ)
    while True:
        asking = selector.select()[0][0].fileobj
        assert isinstance(asking, socket.socket)
        if asking is listening:
            selector.register(listening.accept()[0], EVENT_READ)
            continue
        message, fds, _, _ = socket.recv_fds(asking, _LONGEST, 3)
        if not message and asking is control:
            os._exit(0)
        if not message:
            selector.unregister(asking)
            asking.close()
            continue
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
    held = [key.fileobj for key in selector.get_map().values()]
    selector.close()
    for end in held:
        end.close()  # type: ignore[union-attr]
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection = socket.socket(fileno=fds[0])
    pid = os.fork()
    if pid != 0:  # one waits for the command
        os.close(fds[1])
        os.close(fds[2])
        connection.sendall(f"{pid}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        connection.sendall(str(code).encode())
        os._exit(0)
    connection.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = json.loads(message)
    _become(request, fds[1:])
    return request["script"]


def _become(request: dict[str, Any], streams: list[int]) -> None:
    if request["new_session"]:
        os.setsid()
    for number, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    script = request["script"]
    sys.path[0] = str(Path(script).parent) if script else request["cwd"]  # as Python has it
    sys.argv = [script or "plumbline", *request["arguments"]]
    keep_a_server_ready()


def keep_a_server_ready() -> None:
    """Let the server of stages be a fork of this process as it is now, before it has threads."""
    from multiprocessing import util

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _wait_to_be_the_server(theirs)
    theirs.close()
    start_by_itself, unused = util.spawnv_passfds, [pid]

    def start(path: bytes, arguments: list[str], fds: list[int]) -> int:
        if "multiprocessing.forkserver" not in arguments[-1] or not unused:
            return start_by_itself(path, arguments, fds)
        what = {"code": arguments[-1], "fds": list(fds), "environment": dict(os.environ)}
        socket.send_fds(ours, [json.dumps(what).encode()], list(fds))
        return unused.pop()

    util.spawnv_passfds = start


def _point_at_nothing(kept: int) -> None:
    """Let go of all open files but one.

    Their numbers stay taken: what had them open, such as the file of pytest's log, may yet write,
    and it would write into whatever had the number then.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in _open_files():
        if number > 2 and number not in (kept, nothing):
            os.dup2(nothing, number, inheritable=False)


def _open_files() -> list[int]:
    return [int(file.name) for file in Path("/dev/fd").iterdir()]


def _wait_to_be_the_server(end: socket.socket) -> None:
    _point_at_nothing(kept=end.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message, received, _, _ = socket.recv_fds(end, _LONGEST, 8)
    if not message:
        os._exit(0)  # the command ended without a stage
    what = json.loads(message)
    end.close()
    # As after an exec: what was passed has the same numbers.
    safe = max(*_open_files(), *what["fds"]) + 1
    moved = [os.dup2(fd, safe + place) for place, fd in enumerate(received)]
    for fd in received:
        os.close(fd)
    for fd, number in zip(moved, what["fds"], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(what["environment"])
    try:
        exec(what["code"], {})  # which ends by SystemExit
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    import plumbline.runs.preload  # noqa: F401
    from plumbline.commands.recipe_book import all_recipes
    from plumbline.runs.code_version import PACKAGES, digest

    for recipe in all_recipes():
        recipe.module()
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        digest(name)  # of its code, which a command needs of each of its stages
    gc.freeze()
    its_script = serve(*(socket.socket(fileno=int(end)) for end in sys.argv[1:]))
    if its_script is None:
        runpy.run_module("plumbline", run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(its_script, run_name="__main__")
