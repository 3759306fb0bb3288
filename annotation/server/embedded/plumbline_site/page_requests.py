"""What Plumbline's labelling page asks the server for: queues, pairs ready to show, feedback.

Answers go the way that Argilla's own page sends them, and so do all checks of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from argilla_server.database import get_async_db
from argilla_server.models import User
from argilla_server.security import auth
from fastapi import APIRouter, Depends, HTTPException, Query, Security
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .engine import AS_PUSHED
from .markdown import rendered
from .shuffle import shuffled

PAGE = Path(__file__).with_name("page")
SHOWN = (("prompt", "response_a", "response_b"), ("asked", "answered"))
"""The fields of datasets that the page can show: pairs, and texts to correct. There may be others
beside them: ``votes``, or the ``passage`` that the texts are about and the ``doubt`` about them."""
MOST_RECORDS = 10
_ASKED_AFTER = {"strength": {"question": "choice", "values": ["a", "b"]}}
"""What datasets ask only after certain answers, where they do not say so themselves."""

router = APIRouter(prefix="/labelling")


def install(app: Any, api: Any) -> None:
    """Add the page and its requests. Argilla's own page stays, at ``/?argilla``."""
    static = next(route for route in app.router.routes if getattr(route, "name", "") == "static")

    async def home(request: Request) -> Any:
        if request.url.query:
            return await static.app.get_response("index.html", request.scope)
        return RedirectResponse("/label", 307)

    api.include_router(router)
    app.router.routes[:0] = [
        Route("/", home),
        Route("/label", _page),
        Mount("/label", StaticFiles(directory=PAGE)),
    ]


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})


@router.get("/queues")
async def queues(
    db: Any = Depends(get_async_db),  # noqa: B008 - FastAPI's own way
    user: User = Security(auth.get_current_user),  # noqa: B008
) -> dict[str, Any]:
    """Return the queues of the person who asks, each with its questions and progress."""
    rows = await db.execute(
        text(
            "SELECT datasets.id, datasets.name, datasets.guidelines, datasets.metadata, "
            "workspaces.name FROM datasets "
            "JOIN workspaces ON workspaces.id = datasets.workspace_id "
            "JOIN workspaces_users ON workspaces_users.workspace_id = workspaces.id "
            "WHERE workspaces_users.user_id = :user AND datasets.status = 'ready' "
            "ORDER BY datasets.inserted_at"
        ),
        {"user": user.id.hex},
    )
    entries = []
    for dataset, name, guidelines, metadata, workspace in rows.all():
        fields = await _rows(
            db, "SELECT name FROM fields WHERE dataset_id = :dataset", dataset=dataset
        )
        if not any({field for (field,) in fields}.issuperset(kind) for kind in SHOWN):
            continue  # made by somebody else than Plumbline; Argilla's own page shows it
        page = _page_settings(metadata)
        entries.append(
            {
                "id": str(UUID(str(dataset))),
                "name": page.get("campaign") or name,
                "workspace": workspace,
                "kind": page.get("kind", "labels"),
                "guidelines": rendered(guidelines or "", breaks=False),
                "questions": await _questions(db, dataset, page),
                "progress": await _progress(db, dataset, user),
            }
        )
    return {"person": user.username, "role": str(user.role.value), "queues": entries}


@router.get("/queues/{dataset_id}/records")
async def next_records(
    dataset_id: UUID,
    limit: int = Query(3, ge=1, le=MOST_RECORDS),
    db: Any = Depends(get_async_db),  # noqa: B008
    user: User = Security(auth.get_current_user),  # noqa: B008
) -> dict[str, Any]:
    """Return the next pairs that wait for the person who asks, ready to show."""
    metadata = await _metadata(db, dataset_id, user)
    own = _plumbline_part(metadata)
    order = "records.rowid" if own.get("order") == AS_PUSHED else shuffled(user.id)
    rows = await _rows(
        db,
        "SELECT records.id, records.fields FROM records "
        "WHERE records.dataset_id = :dataset AND records.status = 'pending' AND NOT EXISTS "
        "(SELECT 1 FROM responses WHERE responses.record_id = records.id "
        "AND responses.user_id = :user AND responses.status <> 'draft') "
        f"ORDER BY {order}, records.rowid LIMIT :limit",
        dataset=dataset_id.hex,
        user=user.id.hex,
        limit=limit,
    )
    return {
        "records": [await _shown(record, fields, metadata) for record, fields in rows],
        "progress": await _progress(db, dataset_id.hex, user),
    }


@router.get("/queues/{dataset_id}/answered")
async def answered(
    dataset_id: UUID,
    back: int = Query(1, ge=1),
    db: Any = Depends(get_async_db),  # noqa: B008
    user: User = Security(auth.get_current_user),  # noqa: B008
) -> dict[str, Any]:
    """Return the pair that the person who asks answered last, or so many before, with the answer.

    The order is that of the first answers, so that a changed answer keeps its place.
    """
    metadata = await _metadata(db, dataset_id, user)
    rows = await _rows(
        db,
        'SELECT records.id, records.fields, responses.status, responses."values" FROM responses '
        "JOIN records ON records.id = responses.record_id "
        "WHERE records.dataset_id = :dataset AND responses.user_id = :user "
        "AND responses.status <> 'draft' "
        "ORDER BY responses.inserted_at DESC, responses.rowid DESC LIMIT 1 OFFSET :offset",
        dataset=dataset_id.hex,
        user=user.id.hex,
        offset=back - 1,
    )
    if not rows:
        return {"record": None}
    record, fields, status, values = rows[0]
    answers = {name: entry["value"] for name, entry in (_json(values) or {}).items()}
    shown = await _shown(record, fields, metadata)
    return {"record": shown | {"answer": {"status": status, "values": answers}}}


@router.get("/records/{record_id}/feedback")
async def feedback(
    record_id: UUID,
    db: Any = Depends(get_async_db),  # noqa: B008
    user: User = Security(auth.get_current_user),  # noqa: B008
) -> dict[str, Any]:
    """Return the known answer to a pair of a training round, once the person has answered it."""
    rows = await _rows(
        db,
        "SELECT records.dataset_id, records.external_id FROM records "
        "JOIN responses ON responses.record_id = records.id AND responses.user_id = :user "
        "WHERE records.id = :record AND responses.status = 'submitted'",
        record=record_id.hex,
        user=user.id.hex,
    )
    if not rows:
        raise HTTPException(404, "Feedback comes after an answer.")
    dataset, external_id = rows[0]
    page = _page_settings(await _metadata(db, UUID(str(dataset)), user))
    return {"feedback": (page.get("feedback") or {}).get(external_id)}


async def _metadata(db: Any, dataset_id: UUID, user: User) -> Any:
    """Return the metadata of a dataset; a person who is not in its workspace gets a 404."""
    rows = await _rows(
        db,
        "SELECT datasets.metadata FROM datasets JOIN workspaces_users "
        "ON workspaces_users.workspace_id = datasets.workspace_id "
        "WHERE datasets.id = :dataset AND workspaces_users.user_id = :user "
        "AND datasets.status = 'ready'",
        dataset=dataset_id.hex,
        user=user.id.hex,
    )
    if not rows:
        raise HTTPException(404, "There is no such queue for you.")
    return _json(rows[0][0])


async def _questions(db: Any, dataset: str, page: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = await _rows(
        db,
        "SELECT name, title, description, required, settings FROM questions "
        "WHERE dataset_id = :dataset ORDER BY inserted_at, rowid",
        dataset=dataset,
    )
    conditions = page.get("conditions", _ASKED_AFTER)
    questions = []
    for name, title, description, required, stored in rows:
        settings = _json(stored)
        questions.append(
            {
                "name": name,
                "title": title,
                "description": description,
                "required": bool(required),
                "kind": settings["type"],
                "options": [
                    {"value": option["value"], "text": option.get("text") or str(option["value"])}
                    for option in settings.get("options") or ()
                ],
                "only_after": conditions.get(name),
            }
        )
    return questions


async def _progress(db: Any, dataset: str, user: User) -> dict[str, int]:
    """Return how many pairs a person has answered, and how many still wait for them."""
    (row,) = await _rows(
        db,
        "SELECT count(mine.id), "
        "count(*) FILTER (WHERE mine.id IS NULL AND records.status = 'pending') "
        "FROM records LEFT JOIN responses AS mine ON mine.record_id = records.id "
        "AND mine.user_id = :user AND mine.status <> 'draft' "
        "WHERE records.dataset_id = :dataset",
        dataset=dataset,
        user=user.id.hex,
    )
    return {"answered": int(row[0]), "open": int(row[1])}


async def _shown(record: str, stored: Any, metadata: Any) -> dict[str, Any]:
    """Return a record as the page shows it: every text as HTML, and as it is written."""
    fields = _json(stored)
    markdown = bool(_page_settings(metadata).get("markdown", True))

    async def both(written: str) -> dict[str, str]:
        return {"html": await _html(written, markdown=markdown), "text": written}

    if "asked" in fields:
        passage = {"role": "passage", **await both(fields.get("passage") or "")}
        return {
            "id": str(UUID(str(record))),
            "turns": [passage],
            "a": None,
            "b": None,
            "votes": None,
            "doubt": fields.get("doubt"),
            "start": {"question": fields["asked"], "answer": fields["answered"]},
        }
    return {
        "id": str(UUID(str(record))),
        "turns": [{"role": t["role"], **await both(t["content"])} for t in fields["prompt"]],
        "a": await both(fields["response_a"]),
        "b": await both(fields["response_b"]),
        "votes": fields.get("votes"),
    }


async def _html(written: str, *, markdown: bool) -> str:
    # In a thread: a long text takes a while, and other people are waiting.
    return await asyncio.to_thread(rendered, written, markdown=markdown)


async def _rows(db: Any, sql: str, **parameters: Any) -> Sequence[Any]:
    return list((await db.execute(text(sql), parameters)).all())


def _json(stored: Any) -> Any:
    return json.loads(stored) if isinstance(stored, str) else stored


def _plumbline_part(metadata: Any) -> Mapping[str, Any]:
    everything = _json(metadata)
    own = everything.get("plumbline") if isinstance(everything, dict) else None
    return own if isinstance(own, dict) else {}


def _page_settings(metadata: Any) -> Mapping[str, Any]:
    page = _plumbline_part(metadata).get("page")
    return page if isinstance(page, dict) else {}
