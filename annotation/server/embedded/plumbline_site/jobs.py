"""Argilla's background jobs, run inside the server's own process.

Argilla puts jobs into Redis, where a worker takes them. A Redis without a worker would lose them in
silence. Here the two necessary jobs run as tasks of the server, and jobs that need the hub are
refused with the reason. A task ends with the process. So the next start corrects the statuses of
records (`RECONCILE`), and a program that waits for a webhook also polls.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

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

from .listeners import skip_events_without_listeners
from .tasks import Scheduled, in_process

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


async def _update_statuses(dataset_id: UUID) -> None:
    # In one statement. Argilla's own job takes one record after another, whether its status
    # changes or not, and it runs after every change of a dataset, also of its guidelines.
    async with AsyncSessionLocal() as db:
        result = await db.execute(text(_RECONCILE_ONE), {"dataset": dataset_id.hex})
        changed = result.all()
        await db.commit()
        for record_id, status in changed:
            whole = [selectinload(Record.dataset)]
            record = await Record.get(db, UUID(record_id), options=whole)
            if record is not None:
                await records.notify_record_event(db, RecordEvent.updated, record)
                if status == RecordStatus.completed:
                    await records.notify_record_event(db, RecordEvent.completed, record)


async def _notify(webhook_id: Any, event: str, timestamp: Any, data: Any) -> None:
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


def install() -> None:
    """Run Argilla's jobs in this process."""
    delete_user = accounts.delete_user

    async def delete_user_and_count_again(db: Any, user: Any) -> Any:
        # The person's answers are deleted too, and Argilla would still call the records completed.
        deleted = await delete_user(db, user)
        await db.execute(text(RECONCILE))
        await db.commit()
        return deleted

    dataset_jobs.update_dataset_records_status_job.delay = in_process(_update_statuses)
    webhook_jobs.notify_event_job.delay = in_process(_notify)
    webhook_handlers.notify_ping_event = in_process(_ping)
    accounts.delete_user = delete_user_and_count_again
    hub_jobs.import_dataset_from_hub_job.delay = _refuse
    hub_jobs.export_dataset_to_hub_job.delay = _refuse
    skip_events_without_listeners(webhooks, records, "build_record_event")
    skip_events_without_listeners(webhooks, responses, "build_response_event")
