"""Every stage runs in a process of its own.

So its memory can be measured, the accelerator's memory is free when it ends, no global state of one
stage reaches the next, and a stage that the system kills does not end the run. Processes are forked
from a server that has imported the heavy libraries and our modules once, so one starts in a
fraction of a second.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Protocol

from plumbline import temporary
from plumbline.errors import PlumblineError, explain_failure, explain_system_error
from plumbline.runs import calls, code_version, launch, spinning
from plumbline.runs.energy import EnergyMeter
from plumbline.runs.nodes import Nodes, Order, Other, checkpoints_in
from plumbline.runs.processes import PATH_OF_SERVER
from plumbline.runs.progress import EventPlayer, RemoteReporter, Reporter

Metrics = Mapping[str, float | None]

_TICK_SECONDS = 2.0
#: How long the processes of a stage are listened to after one has failed: one that was killed says
#: more than those that miss it.
_GRACE_SECONDS = 2.0
_STARTING = threading.Lock()
#: A process that starts reads the exit codes of those that have ended, of all threads. Each can be
#: read once: who reads it at the same time finds none.
_EXIT_CODES = threading.Lock()
_IMPORTED = spinning.Moment.now()


@dataclass(frozen=True)
class Outcome:
    """The result of a stage's process."""

    metrics: Metrics
    peak_memory_bytes: int
    machine: dict[str, Any]


class StageDiedError(PlumblineError):
    """A stage's process ended without a result."""


class StageFailedError(PlumblineError):
    """A stage raised an error other than a `PlumblineError`; its traceback is kept."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


def run_isolated(
    function: Callable[..., Metrics],
    partial: Path,
    arguments: Mapping[str, Any],
    reporter: Reporter,
    tick: Callable[[], None],
    threads: int | None = None,
    processes: int = 1,
    sharding: str | None = None,
    variables: Mapping[str, str] | None = None,
    nodes: Nodes | None = None,
) -> Outcome:
    """Run a stage function in a process of its own and return its outcome.

    ``tick`` is called every two seconds while it runs. ``threads``: how many it computes with;
    null leaves that to the libraries. Where several ``processes`` share a training, the outcome is
    that of the first, and all are stopped as soon as one fails. ``sharding``: how they share the
    weights, if they do. ``variables``: of the environment. ``nodes``: other machines, on which the
    most of several processes run.
    """
    place = nodes.place if nodes is not None and processes > 1 else None
    threads = threads or launch.threads_of_each(
        processes // (1 if place is None else place.machines)
    )
    inherited = {name: os.environ[name] for name in os.environ if name.startswith("PLUMBLINE_")}
    variables = inherited | dict(variables or {})
    with ExitStack() as stack:
        port = stack.enter_context(launch.meeting_point(processes))
        own = launch.environments(processes, sharding, place, port)
        others: list[Source] = []
        if nodes is not None and place is not None:
            what = (function, arguments, partial, processes, sharding, port, threads, variables)
            order = Order(*what, checkpoints=checkpoints_in(partial))
            machines = stack.enter_context(nodes.taking_part(order))
            others += [_Machine(nodes, machine) for machine in machines]
        call = (function, partial, arguments, threads)
        members = stack.enter_context(started(call, [variables | each for each in own]))
        outcome = _listen([_Process(*each) for each in members], others, reporter, stack, tick)
    if place is not None:
        outcome.machine["machines"] = place.machines
        outcome.machine.pop("energy", None)  # of one machine of several
    return outcome


@contextmanager
def started(
    call: tuple[Any, ...], environments: Sequence[Mapping[str, str]]
) -> Iterator[list[tuple[Connection, Any]]]:
    """Start a process of a stage for each environment; stop them with the block."""
    spinning.choose(since=_IMPORTED)  # the server reads it once, when it starts
    context = process_server()
    members: list[tuple[Connection, Any]] = []
    try:
        for environment in environments:
            parent_end, child_end = context.Pipe()
            process = context.Process(target=_child, args=(child_end, *call, environment))
            with _EXIT_CODES:
                process.start()
            child_end.close()
            members.append((parent_end, process))
        yield members
    finally:
        for _, process in members:
            if process.is_alive():
                process.kill()
            process.join()
        temporary.clear()  # what those left that were killed


def exit_code(process: Any) -> int | None:
    """Wait for the end of a process that `started` has started; return its exit code."""
    wait([process.sentinel])
    with _EXIT_CODES:
        process.join()
    return process.exitcode  # type: ignore[no-any-return]


def process_server() -> ForkServerContext:
    """Return what starts processes as forks of a server, which the first one starts.

    The server imports the heavy libraries once, and what of ours is imported here, from where it is
    imported here. Imports only: none of them may start a thread or touch a device. Their code is
    read before, so that no artefact of theirs gets the digest of a file that was changed since.
    """
    ours = sorted(name for name in list(sys.modules) if _is_of_a_stage(name))
    for name in ours:
        code_version.fingerprint(name)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["plumbline.runs.preload", *ours])
    with _STARTING:  # threads start stages at a time, and all share one environment
        os.environ[PATH_OF_SERVER] = json.dumps(sys.path)
        try:
            forkserver.ensure_running()
        finally:
            del os.environ[PATH_OF_SERVER]
    return context


def _is_of_a_stage(module: str) -> bool:
    top, _, rest = module.partition(".")
    return top in code_version.PACKAGES and not rest.startswith("commands")


def run_here(
    function: Callable[..., Metrics],
    partial: Path,
    arguments: Mapping[str, Any],
    reporter: Reporter,
) -> Outcome:
    """Run a stage function in this process: for use from a notebook or a debugger."""
    from plumbline.runs.stage import Stage

    meter = EnergyMeter()
    with Stage(partial, reporter) as stage:
        metrics = function(stage, **_resolve(arguments))
    return Outcome(dict(metrics), peak_memory(), _machine(meter))


def peak_memory() -> int:
    """Return the largest memory this process has held: its accelerator's, or else its own."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Source(Protocol):
    """A process of a stage, or another machine with several of them."""

    end: Connection

    def heard(self) -> tuple[Any, ...] | None:
        """Return what it says next; raise `PlumblineError` where it has ended without a result."""
        ...


class _Process:
    """A process on this machine."""

    def __init__(self, end: Connection, process: Any) -> None:
        self.end, self._process = end, process

    def heard(self) -> tuple[Any, ...]:
        try:
            event: tuple[Any, ...] = self.end.recv()
        except (EOFError, OSError):  # it ended between two messages, or within one
            raise StageDiedError(obituary(exit_code(self._process))) from None
        return event


class _Machine:
    """Another machine."""

    def __init__(self, nodes: Nodes, other: Other) -> None:
        self.end, self._nodes, self._other = other.connection, nodes, other

    def heard(self) -> tuple[Any, ...] | None:
        return self._nodes.heard(self._other)


def _listen(
    processes: Sequence[Source],
    machines: Sequence[Source],
    reporter: Reporter,
    bars: ExitStack,
    tick: Callable[[], None],
) -> Outcome:
    """Show what the first process says until it has a result; raise where any process fails."""
    player = EventPlayer(reporter, bars)
    first = processes[0]
    listened_to: dict[Any, Source] = {source.end: source for source in (*processes, *machines)}
    failed: StageFailedError | None = None
    deadline = 0.0
    while True:
        tick()
        # Where a process has ended, the others fail for that reason, and may say so before it.
        if failed is not None and (not listened_to or time.monotonic() > deadline):
            raise failed
        ready = wait(list(listened_to), _TICK_SECONDS if failed is None else _GRACE_SECONDS)
        if not ready:
            continue
        source = listened_to[next((end for end in ready if end is not first.end), ready[0])]
        heard = source.heard()
        if heard is None:
            continue
        event, *content = heard
        if event == "error":
            raise content[0]
        if event == "failed":
            if source not in machines:  # whose other processes may say more
                del listened_to[source.end]
            if failed is None:
                failed, deadline = StageFailedError(*content), time.monotonic() + _GRACE_SECONDS
        elif source is not first:
            if event == "result":
                del listened_to[source.end]
        elif event == "result":
            if failed is not None:
                raise failed
            return Outcome(*content)
        else:
            player.play(event, *content)


def obituary(exitcode: int | None) -> str:
    """Return why a stage's process has ended without a result."""
    if exitcode == -signal.SIGKILL:
        return (
            "The system killed the stage's process, most likely because memory "
            "ran out. Lower the batch size or max_length; the same command resumes from the last "
            "checkpoint."
        )
    name = signal.Signals(-exitcode).name if exitcode is not None and exitcode < 0 else exitcode
    return f"The stage's process ended without a result ({name}). --debug shows its output."


def _child(
    child_end: Connection,
    function: Callable[..., Metrics],
    partial: Path,
    arguments: Mapping[str, Any],
    threads: int | None,
    environment: Mapping[str, str],
) -> None:
    from plumbline.runs.stage import Stage

    gc.freeze()  # what the server imported never goes
    os.environ.update(environment)  # the server that forks has that of its own start
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and kills
    lock = threading.Lock()
    threading.Thread(target=_die_with_the_parent, args=(child_end,), daemon=True).start()

    def send(*event: Any) -> None:
        with lock:
            child_end.send(event)

    try:
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        number = launch.this_process(environment)
        meter = EnergyMeter()
        with Stage(partial, RemoteReporter(send), number) as stage:
            metrics = function(stage, **_resolve(arguments))
        send("result", dict(metrics), peak_memory(), _machine(meter))
    except PlumblineError as error:
        send("error", error)
    except OSError as error:
        send("error", _with_trace(explain_system_error(error)))
    except BaseException as error:
        explained = explain_failure(error)
        if explained is not None:
            return send("error", _with_trace(explained))
        send("failed", f"{type(error).__name__}: {error}", traceback.format_exc())


def _with_trace(error: PlumblineError) -> PlumblineError:
    """Return an error that keeps the present traceback, for --debug."""
    error.trace = traceback.format_exc()
    return error


def _die_with_the_parent(child_end: Connection) -> None:
    try:
        child_end.recv()  # nothing is ever sent: this returns when the parent is gone
    except (EOFError, OSError):
        os._exit(1)


def _resolve(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: calls.resolve(value) for name, value in arguments.items()}


def _machine(meter: EnergyMeter) -> dict[str, Any]:
    from plumbline.runs.machine import machine

    return machine() | meter.reading()
