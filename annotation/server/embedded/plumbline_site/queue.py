"""Jobs in a real Redis, and the worker that does them.

The queue is the site's own, so that several sites may share one Redis. Where Redis does not answer,
a job runs at once in the process that has it: a change of the overlap must not be half done.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .services import Services, connected, redis_connection
from .tasks import RETRY_AFTER_SECONDS, in_process

log = logging.getLogger("plumbline.jobs")
_JOB_SECONDS = 600


class JobError(Exception):
    """A job that did not succeed."""


def queued(services: Services, name: str) -> Callable[..., Callable[..., Any]]:
    """Return what makes a ``delay`` that puts work into the queue."""
    import redis
    from rq import Queue, Retry

    queue = Queue(name, connection=redis_connection(services))
    retry = Retry(max=len(RETRY_AFTER_SECONDS), interval=list(RETRY_AFTER_SECONDS))

    def later(work: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        at_once = in_process(work)

        def delay(*arguments: Any) -> Any:
            try:
                return queue.enqueue(
                    run,
                    work.__name__,
                    *arguments,
                    retry=retry,
                    job_timeout=_JOB_SECONDS,
                    description=work.__name__,
                )
            except redis.exceptions.RedisError as error:
                log.warning("Redis takes no job: %s. It runs here.", type(error).__name__)
                return at_once(*arguments)

        return delay

    return later


def work(services: Services, name: str) -> None:
    """Do jobs until told to stop. Ends where Redis is lost; it is then started again."""
    from rq import Queue, Worker

    connection = redis_connection(services, answers_within=None)
    queue = Queue(name, connection=connection)
    _take_up_again(queue)
    _count_again(services)
    worker = Worker([queue], connection=connection, log_job_description=False)
    worker.work(with_scheduler=True, logging_level="WARNING")


async def run(work: str, *arguments: Any) -> None:
    """Do one job, in a process of the worker's."""
    from . import jobs

    done = {each.__name__: each for each in (jobs.update_statuses, jobs.notify)}
    try:
        await done[work](*arguments)
    except Exception as error:
        # The type alone: an error's text may quote an address with a secret in it.
        raise JobError(f"{work} failed: {type(error).__name__}") from None


def _take_up_again(queue: Any) -> None:
    """Put back jobs of a worker that was killed. A listener may be told twice."""
    from rq.registry import StartedJobRegistry

    registry = StartedJobRegistry(queue=queue)
    for job_id in registry.get_job_ids():
        job = queue.fetch_job(job_id)
        registry.remove(job_id)
        if job is not None:
            queue._enqueue_job(job, at_front=True)


def _count_again(services: Services) -> None:
    """Set statuses that a job should have set which a killed Redis forgot."""
    from .jobs import reconcile

    with connected(services) as connection, connection.cursor() as cursor:
        cursor.execute(reconcile())
