"""Work on batches in several processes, with the results in order."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from multiprocessing.connection import Connection
from typing import Generic, NoReturn, TypeVar, cast

from plumbline.errors import PlumblineError
from plumbline.runs.isolation import process_server

T = TypeVar("T")
R = TypeVar("R")

#: Seconds of processor time that are worked here first: about what it costs to start processes,
#: which import all libraries.
_WORTH_STARTING = 8.0
_MOST_BY_DEFAULT = 4


def default_workers() -> int:
    """Return one process for each core, at most four."""
    return min(_MOST_BY_DEFAULT, len(os.sched_getaffinity(0)) if _HAS_AFFINITY else _CORES)


_HAS_AFFINITY = hasattr(os, "sched_getaffinity")
_CORES = os.cpu_count() or 1


def map_in_order(
    start: Callable[[], Callable[[T], R]], batches: Iterable[T], workers: int | None
) -> Iterator[R]:
    """Yield what a function makes of each batch, in the order of the batches.

    ``start`` is called once in each process and returns the function. Batches are read as they are
    needed, so that memory does not grow with their number. ``workers``: None works here for some
    seconds, and then starts one process for each core, at most four.
    """
    batches = iter(batches)
    if workers is None:
        yield from _for_some_seconds(start(), batches)
        workers = default_workers()
    if workers == 1:
        yield from map(start(), batches)
        return
    first = next(batches, None)
    if first is None:
        return
    pool = [_Worker[T, R](start) for _ in range(workers)]
    busy: deque[_Worker[T, R]] = deque()
    try:
        for number, batch in enumerate(chain([first], batches)):
            worker = pool[number % workers]
            if len(busy) == workers:  # the one that is sent to next
                yield busy.popleft().receive()
            worker.send(batch)
            busy.append(worker)
        while busy:
            yield busy.popleft().receive()
    finally:
        for worker in pool:
            worker.stop()


def _for_some_seconds(function: Callable[[T], R], batches: Iterator[T]) -> Iterator[R]:
    """Yield what a function makes of batches until it has worked for so long that more may help."""
    worked = 0.0
    for batch in batches:
        started = time.process_time()
        result = function(batch)
        worked += time.process_time() - started
        yield result
        if worked > _WORTH_STARTING:
            return


class _Worker(Generic[T, R]):
    """A process that works on one batch at a time."""

    def __init__(self, start: Callable[[], Callable[[T], R]]) -> None:
        context = process_server()
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, start), daemon=True)
        self._process.start()
        there.close()

    def send(self, batch: T) -> None:
        with suppress(OSError):  # it has ended: what it said of that is received
            self._here.send(batch)

    def receive(self) -> R:
        try:
            kind, content = self._here.recv()
        except (EOFError, OSError):  # it ended between two messages, or within one
            self._raise_end()
        if kind == "error":
            raise content
        return cast("R", content)

    def stop(self) -> None:
        self._here.close()  # the process ends when it reads the end of the pipe
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _raise_end(self) -> NoReturn:
        self._process.join()
        raise PlumblineError(
            "A process that cleans rows ended without a result (exit code "
            f"{self._process.exitcode}); most likely memory ran out. Set workers: 1, or end other "
            "programs."
        )


def _serve(there: Connection, start: Callable[[], Callable[[T], R]]) -> None:
    """Work on batches until the pipe ends, which it does with the process at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other end decides
    try:
        function = start()
        while True:
            try:
                batch = there.recv()
            except (EOFError, OSError):  # the other end has gone
                return
            result = function(batch)
            try:
                there.send(("result", result))
            except OSError:
                return
    except PlumblineError as error:
        failure = error
    except BaseException as error:
        failure = PlumblineError(f"A step failed: {type(error).__name__}: {error}")
        failure.trace = traceback.format_exc()
    with suppress(OSError):
        there.send(("error", failure))
