"""A search engine for Argilla that answers from Argilla's own tables.

Argilla needs Elasticsearch or OpenSearch: an index beside the database, which may differ from it. A
labelling site does not need one, because the database has everything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from argilla_server.enums import MetadataPropertyType, SimilarityOrder
from argilla_server.models import Dataset, MetadataProperty, Record, User, VectorSettings
from argilla_server.search_engine.base import (
    Filter,
    FloatMetadataMetrics,
    IntegerMetadataMetrics,
    MetadataMetrics,
    Order,
    SearchEngine,
    SearchResponseItem,
    SearchResponses,
    TermsMetrics,
    TextQuery,
)
from argilla_server.settings import settings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from . import dialects, text_index
from .filters import Conditions
from .shuffle import shuffled

NAME = "plumbline"
#: What a dataset's metadata says (under "plumbline", "order") when its records are to be shown in
#: the order they came in.
AS_PUSHED = "as-pushed"
_LARGEST_OFFSET = 2**62


@SearchEngine.register(NAME)
class TableSearchEngine(SearchEngine):
    """Answers from the tables. Methods that write an index do nothing, because there is none."""

    _database: AsyncEngine | None = None

    def __init__(self) -> None:
        self._dialect = dialects.of_settings()

    @classmethod
    async def new_instance(cls) -> TableSearchEngine:
        """Return an engine for one request."""
        # Connections of its own: a request that searches already holds one of Argilla's, and
        # requests that wait for a second one while holding the first wait for each other.
        if cls._database is None:
            cls._database = create_async_engine(
                settings.database_url,
                **{"pool_size": 5, "max_overflow": 10, **settings.database_engine_args},
                hide_parameters=True,
            )
        return cls()

    async def close(self) -> None:
        """Keep the connections: an engine is made for every request."""

    async def ping(self) -> bool:
        """Return True where the database answers; its error is raised where it does not."""
        await self._rows("SELECT 1", {})
        return True

    async def info(self) -> dict[str, Any]:
        """Return this engine's name and version, for the status page."""
        version = (await self._rows(self._dialect.version, {}))[0][0]
        return {"search_engine": f"Plumbline on {version}"}

    async def search(
        self,
        dataset: Dataset,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        sort: list[Order] | None = None,
        offset: int = 0,
        limit: int = 100,
        user_id: UUID | str | None = None,
    ) -> SearchResponses:
        """Return a page of a dataset's records. A user without a sort gets an own order.

        Each person has an own order, so that people who share a queue do not all work at the same
        end of it. A dataset of one person may ask to be shown in the order of the push.
        """
        conditions = Conditions(dataset.id, self._dialect)
        if query is not None:
            wanted = TextQuery(q=query) if isinstance(query, str) else query
            conditions.add(*text_index.conditions(wanted.q, wanted.field, self._dialect))
        if filter is not None:
            conditions.filter(filter)
        if sort:
            order = conditions.order_by(sort)
        elif user_id is None or _is_as_pushed(dataset):
            order = "records.rowid"
        else:
            order = shuffled(user_id)
        where, parameters = conditions.sql()
        # Counted in the same query: a query of its own would cost as much as the page.
        rows = await self._rows(
            f"SELECT records.id, count(*) OVER () FROM records WHERE {where} "
            f"ORDER BY {order}, records.rowid LIMIT :limit OFFSET :offset",
            {**parameters, "limit": limit, "offset": min(offset, _LARGEST_OFFSET)},
        )
        if not rows:  # a page behind the end, or a page of length 0
            counted = await self._rows(f"SELECT count(*) FROM records WHERE {where}", parameters)
            return SearchResponses(items=[], total=counted[0][0])
        return SearchResponses(
            items=[SearchResponseItem(record_id=_uuid(row[0]), score=1.0) for row in rows],
            total=rows[0][1],
        )

    async def similarity_search(
        self,
        dataset: Dataset,
        vector_settings: VectorSettings,
        value: list[float] | None = None,
        record: Record | None = None,
        query: TextQuery | str | None = None,
        filter: Filter | None = None,
        max_results: int = 100,
        order: SimilarityOrder = SimilarityOrder.most_similar,
        threshold: float | None = None,
    ) -> SearchResponses:
        """Return the records whose vectors point most nearly the same way (cosine)."""
        wanted = value
        if record is not None:
            wanted = record.vector_value_by_vector_settings(vector_settings)
        if not wanted:
            raise ValueError("Give a vector, or a record that has one.")
        conditions = Conditions(dataset.id, self._dialect)
        if query is not None:
            parsed = TextQuery(q=query) if isinstance(query, str) else query
            conditions.add(*text_index.conditions(parsed.q, parsed.field, self._dialect))
        if filter is not None:
            conditions.filter(filter)
        if record is not None:
            conditions.add(["records.id <> :itself"], {"itself": record.id.hex})
        where, parameters = conditions.sql()
        rows = await self._rows(
            "SELECT records.id, vectors.value FROM records "
            "JOIN vectors ON vectors.record_id = records.id "
            f"WHERE vectors.vector_settings_id = :vector_settings AND {where} "
            "ORDER BY records.rowid",
            {**parameters, "vector_settings": vector_settings.id.hex},
        )
        # In a thread: reading thousands of long vectors takes a while, and people are waiting.
        scores = await asyncio.to_thread(_cosines, [row[1] for row in rows], wanted)
        if order == SimilarityOrder.least_similar:
            scores = [-score for score in scores]
        ranked = sorted(range(len(rows)), key=lambda i: -scores[i])[:max_results]
        items = [
            SearchResponseItem(record_id=_uuid(rows[i][0]), score=scores[i])
            for i in ranked
            if threshold is None or scores[i] >= threshold
        ]
        return SearchResponses(items=items, total=len(items))

    async def get_dataset_progress(self, dataset: Dataset) -> dict[str, int]:
        """Return the number of records: the total, and by status."""
        if dataset.is_draft:
            return {}
        return await self._counts(
            "SELECT status, count(*) FROM records WHERE dataset_id = :dataset GROUP BY status",
            {"dataset": dataset.id.hex},
        )

    async def get_dataset_user_progress(self, dataset: Dataset, user: User) -> dict[str, int]:
        """Return the number of answers that a person gave: the total, and by status."""
        if dataset.is_draft:
            return {}
        return await self._counts(
            "SELECT responses.status, count(*) FROM responses "
            "JOIN records ON records.id = responses.record_id "
            "WHERE records.dataset_id = :dataset AND responses.user_id = :user "
            "GROUP BY responses.status",
            {"dataset": dataset.id.hex, "user": user.id.hex},
        )

    async def compute_metrics_for(self, metadata_property: MetadataProperty) -> MetadataMetrics:
        """Return a metadata property's values with their numbers, or its least and greatest."""
        conditions = Conditions(metadata_property.dataset_id, self._dialect)
        if metadata_property.type == MetadataPropertyType.terms:
            leaves = conditions.metadata_leaves(metadata_property.name)
            where, parameters = conditions.sql()
            rows = await self._rows(
                f"SELECT {self._dialect.text('leaf.atom')}, count(*) FROM records, {leaves} "
                f"WHERE {where} AND leaf.atom IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1",
                parameters,
            )
            terms = [TermsMetrics.TermCount(term=str(row[0]), count=row[1]) for row in rows]
            return TermsMetrics(total=sum(term.count for term in terms), values=terms)
        value = self._dialect.number(conditions.metadata(metadata_property.name))
        where, parameters = conditions.sql()
        least, most = (
            await self._rows(
                f"SELECT min({value}), max({value}) FROM records WHERE {where}", parameters
            )
        )[0]
        kind = (
            IntegerMetadataMetrics
            if metadata_property.type == MetadataPropertyType.integer
            else FloatMetadataMetrics
        )
        return kind(min=least, max=most)

    async def create_index(self, dataset: Dataset) -> None:
        """Do nothing."""

    async def delete_index(self, dataset: Dataset) -> None:
        """Do nothing."""

    async def configure_metadata_property(
        self, dataset: Dataset, metadata_property: MetadataProperty
    ) -> None:
        """Do nothing."""

    async def index_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Do nothing."""

    async def partial_record_update(self, record: Record, **update: Any) -> None:
        """Do nothing."""

    async def delete_records(self, dataset: Dataset, records: Iterable[Record]) -> None:
        """Do nothing."""

    async def update_record_response(self, response: Any) -> None:
        """Do nothing."""

    async def delete_record_response(self, response: Any) -> None:
        """Do nothing."""

    async def update_record_suggestion(self, suggestion: Any) -> None:
        """Do nothing."""

    async def delete_record_suggestion(self, suggestion: Any) -> None:
        """Do nothing."""

    async def _counts(self, sql: str, parameters: dict[str, Any]) -> dict[str, int]:
        counts = {row[0]: row[1] for row in await self._rows(sql, parameters)}
        return {"total": sum(counts.values()), **counts}

    async def _rows(self, sql: str, parameters: dict[str, Any]) -> list[Any]:
        assert self._database is not None
        async with self._database.connect() as connection:
            return list(await connection.execute(text(sql), parameters))


def _uuid(stored: Any) -> UUID:
    return UUID(str(stored))  # SQLite stores ids as text


def _is_as_pushed(dataset: Dataset) -> bool:
    ours = (dataset.metadata_ or {}).get("plumbline")
    return isinstance(ours, dict) and ours.get("order") == AS_PUSHED


def _cosines(stored: list[Any], wanted: list[float]) -> list[float]:
    """Return the cosine between each stored vector and another; 0 where one of them is zero."""
    import numpy as np

    if not stored:
        return []
    # A driver may have read the JSON already.
    read = [json.loads(vector) if isinstance(vector, str) else vector for vector in stored]
    vectors = np.array(read, dtype=float)
    target = np.array(wanted, dtype=float)
    if len(target) != vectors.shape[1]:
        raise ValueError(
            f"The vector has {len(target)} numbers; here they have {vectors.shape[1]}."
        )
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(target)
    products = vectors @ target
    return list(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
