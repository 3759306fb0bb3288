"""Replacements for endpoints of Argilla that show people more than they should see.

In Argilla, any member of a workspace can read everybody's answers and the hidden metadata of a
record at ``/records/{id}``, and can find out hidden metadata by filtering on it. An admin gets the
API keys of a workspace's other members, and could answer in their names.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Endpoint = Callable[..., Awaitable[Any]]

_DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")


def install(app: Any, api: Any) -> None:
    """Replace the endpoints."""
    for served in (app, api):  # the pages of the API's documentation load scripts from elsewhere
        served.router.routes[:] = [
            route for route in served.router.routes if getattr(route, "path", "") not in _DOCS
        ]
    _replace(api, "GET", "/records/{record_id}", _one_record)
    _replace(api, "POST", "/me/datasets/{dataset_id}/records/search", _no_hidden_metadata)
    _replace(api, "GET", "/workspaces/{workspace_id}/users", _no_keys_of_members)
    _replace(api, "DELETE", "/workspaces/{workspace_id}/users/{user_id}", _no_key_of_member)


def _replace(api: Any, method: str, path: str, around: Callable[[Endpoint], Endpoint]) -> None:
    """Put an endpoint of the same arguments in the place of another, or stop the server."""
    for route in api.routes:
        if getattr(route, "path", None) == path and method in route.methods:
            route.dependant.call = around(route.dependant.call)
            return
    raise RuntimeError(f"This Argilla has no {method} {path} to make safe.")


def _one_record(_: Endpoint) -> Endpoint:
    """Show labellers their own answer and the metadata that they may see, as the search does.

    Argilla's own endpoint also fails on a record with vectors.
    """
    from argilla_server.api.handlers.v1.datasets.records import _filter_record_metadata_for_user
    from argilla_server.api.policies.v1 import (
        DatasetPolicy,
        RecordPolicy,
        authorize,
        is_authorized,
    )
    from argilla_server.api.schemas.v1.records import Record as Schema
    from argilla_server.models import Dataset, Record, Vector
    from fastapi.encoders import jsonable_encoder
    from fastapi.responses import JSONResponse
    from sqlalchemy.orm import selectinload

    async def get_record(*, db: Any, record_id: Any, current_user: Any) -> Any:
        record = await Record.get_or_raise(
            db,
            record_id,
            options=[
                selectinload(Record.dataset).selectinload(Dataset.metadata_properties),
                selectinload(Record.suggestions),
                selectinload(Record.responses),
                selectinload(Record.vectors).selectinload(Vector.vector_settings),
            ],
        )
        await authorize(current_user, RecordPolicy.get(record))
        shown = Schema.model_validate(record)
        all_of_it = DatasetPolicy.search_records_with_all_responses(record.dataset)
        if not await is_authorized(current_user, all_of_it):
            shown.responses = [r for r in shown.responses or [] if r.user_id == current_user.id]
        shown.metadata = await _filter_record_metadata_for_user(record, current_user)
        return JSONResponse(jsonable_encoder(shown))

    return get_record


def _no_hidden_metadata(search: Endpoint) -> Endpoint:
    from argilla_server.api.policies.v1 import MetadataPropertyPolicy, is_authorized
    from argilla_server.api.schemas.v1.records import MetadataFilterScope
    from argilla_server.errors.future import UnprocessableEntityError
    from argilla_server.models import Dataset, MetadataProperty
    from sqlalchemy import select
    from sqlalchemy.orm import selectinload

    async def searched(
        *, db: Any, dataset_id: Any, body: Any, current_user: Any, **rest: Any
    ) -> Any:
        parts = [*((body.filters and body.filters.and_) or []), *(body.sort or [])]
        names = {
            part.scope.metadata_property
            for part in parts
            if isinstance(part.scope, MetadataFilterScope)
        }
        if names:
            result = await db.execute(
                select(MetadataProperty)
                .where(MetadataProperty.dataset_id == dataset_id)
                .where(MetadataProperty.name.in_(names))
                .options(selectinload(MetadataProperty.dataset).selectinload(Dataset.workspace))
            )
            for hidden in result.scalars().all():
                if not await is_authorized(current_user, MetadataPropertyPolicy.get(hidden)):
                    # The same words as for a property that does not exist.
                    raise UnprocessableEntityError(
                        f"MetadataProperty not found filtering by name={hidden.name}, "
                        f"dataset_id={dataset_id}"
                    )
        return await search(
            db=db, dataset_id=dataset_id, body=body, current_user=current_user, **rest
        )

    return searched


def _no_keys_of_members(list_users: Endpoint) -> Endpoint:
    async def listed(*, current_user: Any, **rest: Any) -> Any:
        members = await list_users(current_user=current_user, **rest)
        for person in members.items:
            if not current_user.is_owner and person.id != current_user.id:
                person.api_key = ""
        return members

    return listed


def _no_key_of_member(remove_user: Endpoint) -> Endpoint:
    from argilla_server.api.schemas.v1.users import User as Schema

    async def removed(*, current_user: Any, **rest: Any) -> Any:
        person = Schema.model_validate(await remove_user(current_user=current_user, **rest))
        if not current_user.is_owner and person.id != current_user.id:
            person.api_key = ""
        return person

    return removed
