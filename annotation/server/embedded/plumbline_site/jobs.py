"""Argilla's background jobs, run inside the server's own process.

Argilla hands jobs to Redis for a worker to take. A Redis without a worker would swallow them in
silence. Here the two jobs that matter run as tasks of the server, and those that need the hub are
refused with the reason. A task dies with the process: record statuses are set right at the next
start (`RECONCILE`), and clients that wait for a webhook also poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

log = logging.getLogger("plumbline.jobs")

RETRY_AFTER_SECONDS = (1, 10, 60)
_RECONCILE = """
  UPDATE records SET status = wanted.status FROM (
    SELECT records.id, CASE WHEN count(responses.id) >=
      json_extract(datasets.distribution, '$.min_submitted') THEN 'completed' ELSE 'pending' END
      AS status
    FROM records JOIN datasets ON datasets.id = records.dataset_id
    LEFT JOIN responses ON responses.record_id = records.id AND responses.status = 'submitted'
    {of}
    GROUP BY records.id
  ) AS wanted
  WHERE wanted.id = records.id AND records.status <> wanted.status
"""
#: Sets every record's status by its submitted answers, as Argilla itself would have.
RECONCILE = _RECONCILE.format(of="")
_RECONCILE_ONE = (
    _RECONCILE.format(of="WHERE datasets.id = :dataset") + "RETURNING records.id, records.status"
)

_running: set[asyncio.Task[None]] = set()


class Scheduled:
    """What stands for a queued job."""

    def __init__(self) -> None:
        self.id = str(uuid4())


def in_process(work: Callable[..., Awaitable[None]]) -> Callable[..., Scheduled]:
    """Return a ``delay`` that runs the work as a task, and again where it fails."""

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
        _running.add(task)  # a task that nobody holds may be collected before it ends
        task.add_done_callback(_running.discard)
        return Scheduled()

    return delay


def install() -> None:
    """Put these in the place of the queue."""
    from argilla_server.api.handlers.v1 import webhooks as webhook_handlers
    from argilla_server.contexts import accounts, webhooks
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.enums import RecordStatus
    from argilla_server.errors.future import UnprocessableEntityError
    from argilla_server.jobs import dataset_jobs, hub_jobs, webhook_jobs
    from argilla_server.models import Record, Webhook
    from argilla_server.webhooks.v1 import records, responses
    from argilla_server.webhooks.v1.commons import notify_event
    from argilla_server.webhooks.v1.enums import RecordEvent
    from argilla_server.webhooks.v1.ping import notify_ping_event
    from sqlalchemy import text
    from sqlalchemy.orm import selectinload

    async def update_statuses(dataset_id: UUID) -> None:
        # At once. Argilla's own job takes a record after the other, whether its status changes or
        # not, and it is run after every change of a dataset, also of its guidelines.
        async with AsyncSessionLocal() as db:
            found = await db.execute(text(_RECONCILE_ONE), {"dataset": dataset_id.hex})
            changed = found.all()
            await db.commit()
            for record_id, status in changed:
                whole = [selectinload(Record.dataset)]
                record = await Record.get(db, UUID(record_id), options=whole)
                if record is not None:
                    await records.notify_record_event(db, RecordEvent.updated, record)
                    if status == RecordStatus.completed:
                        await records.notify_record_event(db, RecordEvent.completed, record)

    async def notify(webhook_id: Any, event: str, timestamp: Any, data: Any) -> None:
        async with AsyncSessionLocal() as db:
            webhook = await Webhook.get(db, webhook_id)
        if webhook is None:
            return
        # In a thread: a listener that is slow to answer must not hold up the labellers.
        response = await asyncio.to_thread(notify_event, webhook, event, timestamp, data)
        response.raise_for_status()

    async def ping(webhook: Any) -> None:
        # In a thread as well: as it comes, the whole site waits for the listener.
        (await asyncio.to_thread(notify_ping_event, webhook)).raise_for_status()

    delete_user = accounts.delete_user

    async def delete_user_and_count_again(db: Any, user: Any) -> Any:
        # Their answers go with them, and Argilla would still call the records completed.
        deleted = await delete_user(db, user)
        await db.execute(text(RECONCILE))
        await db.commit()
        return deleted

    def refuse(*_: Any, **__: Any) -> Scheduled:
        raise UnprocessableEntityError(
            "This labelling site works without the hub. Push pairs with "
            "`plumbline annotate push`, and take labels with `plumbline annotate pull`."
        )

    dataset_jobs.update_dataset_records_status_job.delay = in_process(update_statuses)
    webhook_jobs.notify_event_job.delay = in_process(notify)
    webhook_handlers.notify_ping_event = in_process(ping)
    accounts.delete_user = delete_user_and_count_again
    hub_jobs.import_dataset_from_hub_job.delay = refuse
    hub_jobs.export_dataset_to_hub_job.delay = refuse

    _skip_events_nobody_hears(webhooks, records, "build_record_event")
    _skip_events_nobody_hears(webhooks, responses, "build_response_event")


class _Unheard:
    """An event without listeners."""

    async def notify(self, _: Any) -> list[Any]:
        return []


@dataclass
class _Listeners:
    """What is known of webhooks."""

    enabled: bool | None = None
    """Whether any is enabled, as far as is known."""
    changes: int = 0


_listeners = _Listeners()


def _skip_events_nobody_hears(webhooks: Any, module: Any, name: str) -> None:
    """Leave out the building of events where no webhook is enabled; it is most of a push's time."""
    build = getattr(module, name)

    async def build_if_heard(db: Any, event: Any, subject: Any) -> Any:
        heard = _listeners.enabled
        if heard is None:
            before = _listeners.changes
            heard = bool(await webhooks.list_enabled_webhooks(db))
            if before == _listeners.changes:  # else it may be out of date: the next one looks again
                _listeners.enabled = heard
        return await build(db, event, subject) if heard else _Unheard()

    setattr(module, name, build_if_heard)
    for change in ("create_webhook", "update_webhook", "delete_webhook"):
        original = getattr(webhooks, change)
        if not hasattr(original, "forgets_listeners"):
            setattr(webhooks, change, _forgetting(original))


def _forgetting(change: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def changed(*arguments: Any) -> Any:
        try:
            return await change(*arguments)
        finally:
            _listeners.enabled = None
            _listeners.changes += 1

    changed.forgets_listeners = True  # type: ignore[attr-defined]
    return changed
