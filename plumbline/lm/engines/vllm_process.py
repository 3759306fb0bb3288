"""vLLM servers of this machine: started, found and stopped.

vLLM pins versions of torch and transformers that trainings cannot have, so it lives in an
environment of its own, which is made at the first start. A server answers this machine alone:
anyone who reaches the addresses by which it takes weights can have it do anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from plumbline import own_environment
from plumbline.errors import BusyError, ConfigError, PlumblineError
from plumbline.ports import refuse_taken
from plumbline.proxies import client_options

#: What is installed. The ways in which weights are sent were read in the source of 0.33.
PACKAGE = "vllm>=0.20,<0.34"
_HOST = "127.0.0.1"
_STOP_SECONDS = 30
_SAY_SECONDS = 15
_LOG_LINES = 12


@dataclass(frozen=True)
class Options:
    """How a server is started."""

    model: str
    """A folder or a hub name: the base of the policies that it will sample from."""
    port: int = 8000
    max_rank: int = 64
    """The largest rank of an adapter."""
    gpu_memory: float = 0.45
    """The share of a GPU's memory that it may take; trainings need the rest."""
    gpus: str | None = None
    """The GPUs that it uses, such as 1 or 2,3; its layers are shared by them. None: the first."""
    python: Path | None = None
    """The interpreter of an environment that has vLLM. None: one that is made for it."""
    more: tuple[str, ...] = ()
    """Further options of ``vllm serve``."""


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    pid: int
    url: str
    model: str
    started: float


class Servers:
    """The servers of one user, each known by its port."""

    def __init__(self, home: Path) -> None:
        """``home``: a folder for their logs and what is known of them."""
        self._home = home

    def log(self, port: int) -> Path:
        """Return the file that a server writes to."""
        return self._home / f"{port}.log"

    def running(self, port: int) -> Running | None:
        """Return the server at a port, or None."""
        import psutil

        try:
            stored = Running(**json.loads(self._file(port).read_text(encoding="utf-8")))
            # Another process may have this number by now; a zombie has no command.
            command = psutil.Process(stored.pid).cmdline()
        except (FileNotFoundError, ValueError, TypeError, psutil.Error):
            return None
        return stored if command[-4:] == _end_of_command(port) else None

    def all(self) -> list[Running]:
        """Return all that run."""
        ports = sorted(int(file.stem) for file in self._home.glob("*.json") if file.stem.isdigit())
        return [server for port in ports if (server := self.running(port)) is not None]

    def up(self, options: Options, say: Callable[[str], None]) -> Running:
        """Start a server and wait until it answers; return it, also where it ran already.

        Raises `PlumblineError` with the end of its log where it does not start.
        """
        from filelock import FileLock, Timeout

        self._home.mkdir(parents=True, exist_ok=True)
        interpreter = _interpreter(options, say)
        try:
            with FileLock(self._home / f"{options.port}.lock", timeout=0):
                already = self.running(options.port)
                if already is not None:
                    if already.model != options.model:
                        raise BusyError(
                            f"The server at {already.url} has {already.model}. Stop it first "
                            f"(plumbline rollouts down --port {options.port}), or take another "
                            "--port."
                        )
                    return already
                refuse_taken(_HOST, options.port, "The vLLM server")
                return self._start(options, interpreter, say)
        except Timeout:
            raise BusyError(
                f"Another command is starting or stopping the server at port {options.port}."
            ) from None

    def down(self, port: int) -> bool:
        """Stop a server with all its processes; return whether one ran."""
        server = self.running(port)
        self._file(port).unlink(missing_ok=True)
        if server is not None:
            _stop(server.pid)
        return server is not None

    def _file(self, port: int) -> Path:
        return self._home / f"{port}.json"

    def _start(self, options: Options, interpreter: Path, say: Callable[[str], None]) -> Running:
        log = self.log(options.port)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(interpreter), "-P", *command(options)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=_environment(options),
                start_new_session=True,  # it keeps running without the terminal, and after Ctrl-C
            )
        server = Running(
            process.pid, f"http://{_HOST}:{options.port}", options.model, started=time.time()
        )
        try:
            # Before it answers: if this process is killed now, `down` still finds the server.
            self._file(options.port).write_text(json.dumps(asdict(server)), encoding="utf-8")
            _wait_until_ready(server, process, log, say)
        except BaseException:
            _stop(process.pid)
            process.wait()
            self._file(options.port).unlink(missing_ok=True)
            raise
        return server


def command(options: Options) -> list[str]:
    """Return what an interpreter with vLLM is started with."""
    gpus = len(options.gpus.split(",")) if options.gpus else 1
    return [
        "-m", "vllm.entrypoints.cli.main", "serve", options.model,
        "--enable-lora", "--max-lora-rank", str(options.max_rank), "--max-loras", "2",
        "--logprobs-mode", "processed_logprobs",
        "--gpu-memory-utilization", str(options.gpu_memory),
        "--tensor-parallel-size", str(gpus), *options.more, *_end_of_command(options.port),
    ]  # fmt: skip


def _end_of_command(port: int) -> list[str]:
    """Return the end of a server's command, by which its process is recognised."""
    return ["--host", _HOST, "--port", str(port)]


def _environment(options: Options) -> dict[str, str]:
    """Return the variables of a server: ours but for Python's, and what lets it take weights."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {
        **kept,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "PYTHONUNBUFFERED": "1",
        **({"CUDA_VISIBLE_DEVICES": options.gpus} if options.gpus else {}),
    }


def _interpreter(options: Options, say: Callable[[str], None]) -> Path:
    """Return an interpreter that has vLLM; raise `ConfigError` where the one named has none."""
    if options.python is None:
        folder = own_environment.location("vllm", PACKAGE.encode())
        return own_environment.interpreter_of(folder, [PACKAGE], "vLLM", say)
    question = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        has_it = subprocess.run([str(options.python), "-c", question], check=False).returncode == 0
    except OSError as error:
        raise ConfigError(f"--python {options.python} does not start: {error.strerror}.") from None
    if not has_it:
        raise ConfigError(
            f"{options.python} has no vLLM. Install it there (pip install '{PACKAGE}'), or leave "
            "--python out."
        )
    return options.python


def _wait_until_ready(
    server: Running, process: subprocess.Popen[bytes], log: Path, say: Callable[[str], None]
) -> None:
    """Wait until a server answers. It may take minutes to load and compile, and says how it is."""
    import httpx

    started = reported = time.monotonic()
    with httpx.Client(timeout=5, **client_options(server.url)) as client:
        while True:
            code = process.poll()
            if code is not None:
                raise PlumblineError(
                    f"The vLLM server stopped with code {code} while starting. The end of its log "
                    f"{log}:\n" + "\n".join(_last_lines(log, _LOG_LINES))
                )
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{server.url}/health").status_code == 200:
                    return
            if time.monotonic() - reported > _SAY_SECONDS:
                reported = time.monotonic()
                say(f"{reported - started:.0f} s: {' '.join(_last_lines(log, 1))[:120]}")
            time.sleep(0.2)


def _last_lines(log: Path, count: int) -> Sequence[str]:
    return log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-count:]


def _stop(pid: int) -> None:
    """Stop a process, and what is left of those that it started."""
    import psutil

    try:
        first = psutil.Process(pid)
        everyone = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    signaled, left = [first], everyone
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        for process in signaled:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(signaled, timeout=_STOP_SECONDS)
        signaled = left = [process for process in left if process.is_running()]
