"""Work in the background of the server's own process, in the place of a queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

log = logging.getLogger("plumbline.jobs")

RETRY_AFTER_SECONDS = (1, 10, 60)

_running: set[asyncio.Task[None]] = set()


class Scheduled:
    """Takes the place of a queued job."""

    def __init__(self) -> None:
        self.id = str(uuid4())


def in_process(work: Callable[..., Awaitable[None]]) -> Callable[..., Scheduled]:
    """Return a ``delay`` that runs the work as a task, and runs it again where it fails."""

    async def attempts(*arguments: Any) -> None:
        for wait in (*RETRY_AFTER_SECONDS, None):
            try:
                await work(*arguments)
                return
            except Exception as error:
                # The type alone: an error's text may quote an address with a secret in it.
                log.warning("%s failed: %s", work.__name__, type(error).__name__)
                if wait is None:
                    return
                await asyncio.sleep(wait)

    def delay(*arguments: Any) -> Scheduled:
        task = asyncio.get_running_loop().create_task(attempts(*arguments))
        _running.add(task)  # without a reference, a task may be collected before it ends
        task.add_done_callback(_running.discard)
        return Scheduled()

    return delay
