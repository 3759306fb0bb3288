"""Requests of many clients, scored together: one thread asks the scorer, in large batches."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from plumbline.data.records import Message
from plumbline.errors import PlumblineError
from plumbline.hooks import Scorer
from reward.server.statistics import ServerStatistics


class FullError(Exception):
    """Too many responses wait already."""


class ClosedError(Exception):
    """No more responses are scored."""


@dataclass
class Request:
    """Responses of one client to be scored, and the promise of their scores."""

    prompts: Sequence[Sequence[Message]]
    responses: Sequence[str]
    result: Future[list[float]] = field(default_factory=Future)

    def __len__(self) -> int:
        return len(self.responses)


class Batcher:
    """Collects requests for a moment and scores them in one call.

    ``most_rows``: the responses of one call. ``wait``: seconds to wait for more requests where
    there are fewer. ``most_waiting``: so many responses may wait; beyond that, `FullError`.
    """

    def __init__(
        self,
        scorer: Scorer,
        statistics: ServerStatistics,
        *,
        most_rows: int = 256,
        wait: float = 0.005,
        most_waiting: int = 100_000,
    ) -> None:
        self._scorer, self._statistics = scorer, statistics
        self._most_rows, self._wait, self._most_waiting = most_rows, wait, most_waiting
        self._queue: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting, self._closed = 0, False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True, name="scoring")
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many responses wait or are being scored."""
        return self._waiting

    @property
    def is_alive(self) -> bool:
        """Whether the thread that scores is running."""
        return self._thread.is_alive()

    def submit(self, request: Request) -> Future[list[float]]:
        """Put a request in the line.

        Raises `FullError` where the line is too long, and `ClosedError` after its end.
        """
        with self._lock:
            if self._closed:
                raise ClosedError
            if self._waiting and self._waiting + len(request) > self._most_waiting:
                raise FullError
            self._waiting += len(request)
            self._queue.put(request)
        return request.result

    def close(self) -> None:
        """Score what waits, and stop."""
        with self._lock:  # behind the last request
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            began = time.perf_counter()
            self._score(batch)
            rows = sum(map(len, batch))
            with self._lock:
                self._waiting -= rows
            self._statistics.add_batch(rows, time.perf_counter() - began)

    def _next_batch(self) -> list[Request] | None:
        first = self._queue.get()
        if first is None:
            return None
        batch, rows = [first], len(first)
        until = time.monotonic() + self._wait
        while rows < self._most_rows:
            try:
                request = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                self._queue.put(None)  # the end: once this batch is done
                break
            batch.append(request)
            rows += len(request)
        return batch

    def _score(self, batch: Sequence[Request]) -> None:
        prompts = [prompt for request in batch for prompt in request.prompts]
        responses = [response for request in batch for response in request.responses]
        try:
            scores = self._scorer.score(prompts, responses)
            if len(scores) != len(responses):
                raise PlumblineError(f"{len(scores)} scores came for {len(responses)} responses.")
        except Exception as error:  # the server must outlive what one client asks
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for request in batch:  # one of them is to blame, and the others get their scores
                self._score([request])
            return
        start = 0
        for request in batch:
            request.result.set_result(scores[start : start + len(request)])
            start += len(request)
