"""Argilla's background jobs: in the server's own process, or in a queue of a real Redis.

Argilla puts jobs into Redis, where a worker takes them. A Redis without a worker would lose them in
silence. On SQLite the two necessary jobs run as tasks of the server. On PostgreSQL they wait in
Redis for the site's own worker (`queue`). Jobs that need the hub are refused with the reason.

A task ends with the process. So the next start corrects the statuses of records (`reconcile`), and
a program that waits for a webhook also polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from argilla_server.api.handlers.v1 import webhooks as webhook_handlers
from argilla_server.contexts import accounts, distribution, webhooks
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

from . import dialects
from .listeners import skip_events_without_listeners
from .tasks import Scheduled, in_process

_RECONCILE = """
  UPDATE records SET status = CAST(wanted.status AS {status_type}) FROM (
    SELECT records.id, CASE WHEN count(responses.id) >= {least_answers} THEN 'completed'
      ELSE 'pending' END AS status
    FROM records JOIN datasets ON datasets.id = records.dataset_id
    LEFT JOIN responses ON responses.record_id = records.id AND responses.status = 'submitted'
    {of}
    GROUP BY records.id, {least_answers}
  ) AS wanted
  WHERE wanted.id = records.id AND CAST(records.status AS TEXT) <> wanted.status
"""


def reconcile(of: str = "") -> str:
    """Return SQL that sets every record's status by its submitted answers, as Argilla would."""
    dialect = dialects.of_settings()
    return _RECONCILE.format(
        of=of, status_type=dialect.status_type, least_answers=dialect.least_answers
    )


async def update_statuses(dataset_id: UUID) -> None:
    """Set the statuses of a dataset's records, and tell listeners which changed."""
    # In one statement. Argilla's own job takes one record after another, whether its status
    # changes or not, and it runs after every change of a dataset, also of its guidelines.
    statement = reconcile("WHERE datasets.id = :dataset") + "RETURNING records.id, records.status"
    async with AsyncSessionLocal() as db:
        result = await db.execute(text(statement), {"dataset": dataset_id.hex})
        changed = result.all()
        await db.commit()
        for record_id, _ in changed:
            await _tell_of(db, UUID(str(record_id)))


async def _tell_of(db: Any, record_id: UUID) -> Any:
    """Tell listeners that a record changed; return the record."""
    record = await Record.get(db, record_id, options=[selectinload(Record.dataset)])
    if record is not None:
        await records.notify_record_event(db, RecordEvent.updated, record)
        if record.status == RecordStatus.completed:
            await records.notify_record_event(db, RecordEvent.completed, record)
    return record


async def _status_is_set(_: Any, record_id: UUID) -> Any:
    """Take the place of Argilla's update of a status, which the database has made already."""
    async with AsyncSessionLocal() as db:
        return await _tell_of(db, record_id)


async def notify(webhook_id: Any, event: str, timestamp: Any, data: Any) -> None:
    """Tell one listener of an event."""
    async with AsyncSessionLocal() as db:
        webhook = await Webhook.get(db, webhook_id)
    if webhook is None:
        return
    # In a thread: a listener that answers slowly must not delay the labelers.
    response = await asyncio.to_thread(notify_event, webhook, event, timestamp, data)
    response.raise_for_status()


async def _ping(webhook: Any) -> None:
    # In a thread as well: Argilla's own handler would stop the whole site until the reply.
    (await asyncio.to_thread(notify_ping_event, webhook)).raise_for_status()


def _refuse(*_: Any, **__: Any) -> Scheduled:
    raise UnprocessableEntityError(
        "This labelling site works without the hub. Push pairs with `plumbline annotate push`, and "
        "fetch labels with `plumbline annotate pull`."
    )


def install(later: Callable[..., Callable[..., Any]] = in_process) -> None:
    """Run Argilla's jobs ``later``: as tasks of this process, or in a queue."""
    is_only_process = later is in_process
    delete_user = accounts.delete_user

    async def delete_user_and_count_again(db: Any, user: Any) -> Any:
        # The person's answers are deleted too, and Argilla would still call the records completed.
        deleted = await delete_user(db, user)
        await db.execute(text(reconcile()))
        await db.commit()
        return deleted

    dataset_jobs.update_dataset_records_status_job.delay = later(update_statuses)
    webhook_jobs.notify_event_job.delay = later(notify)
    webhook_handlers.notify_ping_event = in_process(_ping)
    accounts.delete_user = delete_user_and_count_again
    if not is_only_process:
        distribution.update_record_status = _status_is_set
    hub_jobs.import_dataset_from_hub_job.delay = _refuse
    hub_jobs.export_dataset_to_hub_job.delay = _refuse
    for module, name in ((records, "build_record_event"), (responses, "build_response_event")):
        skip_events_without_listeners(webhooks, module, name, is_only_process=is_only_process)
