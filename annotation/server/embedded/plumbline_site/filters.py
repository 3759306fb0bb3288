"""Argilla's filters and orders as SQL over its own tables.

A filter that cannot be expressed raises `ValueError`, which Argilla answers with 422 and the text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any
from uuid import UUID

from argilla_server.enums import ResponseStatusFilter
from argilla_server.search_engine.base import (
    AndFilter,
    Filter,
    FilterScope,
    MetadataFilterScope,
    Order,
    RangeFilter,
    RecordFilterScope,
    ResponseFilterScope,
    SuggestionFilterScope,
    TermsFilter,
)

from .dialects import Dialect

_COLUMNS = ("id", "external_id", "inserted_at", "updated_at", "status")
_TIMES = ("inserted_at", "updated_at")
_VALUES = 'responses."values"'


class Conditions:
    """Conditions on ``records``, gathered one by one, with every value as a parameter."""

    def __init__(self, dataset_id: UUID, dialect: Dialect) -> None:
        self._dialect = dialect
        self._conditions = ["records.dataset_id = :dataset"]
        self._parameters: dict[str, Any] = {"dataset": dataset_id.hex}

    def sql(self) -> tuple[str, dict[str, Any]]:
        """Return the conditions as one, and the parameters."""
        return " AND ".join(self._conditions), self._parameters

    def add(self, conditions: list[str], parameters: dict[str, Any]) -> None:
        """Add conditions whose parameters have names of their own."""
        self._conditions += conditions
        self._parameters |= parameters

    def metadata(self, name: str) -> str:
        """Return the expression of a metadata property."""
        return self._dialect.value("records.metadata", (name,), self._bind)

    def metadata_leaves(self, name: str) -> str:
        """Return the table ``leaf`` of a metadata property's values; a property may be a list."""
        return self._dialect.leaves("records.metadata", (name,), self._bind)

    def filter(self, filter: Filter) -> None:
        """Add a filter."""
        if isinstance(filter, AndFilter):
            for part in filter.filters:
                self.filter(part)
        elif isinstance(filter.scope, ResponseFilterScope):
            self._conditions.append(self._of_responses(filter, filter.scope))
        elif isinstance(filter.scope, SuggestionFilterScope):
            inside = self._suggestion_value(filter.scope)
            self._conditions.append(
                f"EXISTS (SELECT 1 FROM {inside['from']} WHERE {inside['where']} "
                f"AND {self._compare(filter, inside['value'])})"
            )
        elif isinstance(filter.scope, MetadataFilterScope):
            leaves = self.metadata_leaves(filter.scope.metadata_property)
            self._conditions.append(
                f"EXISTS (SELECT 1 FROM {leaves} WHERE {self._compare(filter, 'leaf.atom')})"
            )
        else:
            self._conditions.append(self._of_record(filter, filter.scope))

    def order_by(self, sort: list[Order]) -> str:
        """Return an ORDER BY; records without the value come last either way."""
        return ", ".join(
            f"{self._sort_value(order.scope)} "
            f"{'DESC' if str(order.order) == 'desc' else 'ASC'} NULLS LAST"
            for order in sort
        )

    def _of_record(self, filter: Any, scope: RecordFilterScope) -> str:
        name = _known(scope.property)
        column = self._dialect.of_record(name)
        if isinstance(filter, TermsFilter):
            wanted = [self._stored(name, value, "=") for value in filter.values]
            return f"{column} IN ({self._bind_all(wanted)})"
        bounds = [
            f"{column} {sign} {self._bind(self._stored(name, bound, sign))}"
            for sign, bound in ((">=", filter.ge), ("<=", filter.le))
            if bound is not None
        ]
        return f"({' AND '.join(bounds)})"

    def _of_responses(self, filter: Any, scope: ResponseFilterScope) -> str:
        mine = f" AND responses.user_id = {self._bind(scope.user.id.hex)}" if scope.user else ""
        if scope.question:
            leaves = self._dialect.leaves(_VALUES, (scope.question, "value"), self._bind)
            return (
                f"EXISTS (SELECT 1 FROM responses, {leaves} "
                f"WHERE responses.record_id = records.id{mine} "
                f"AND {self._compare(filter, 'leaf.atom')})"
            )
        if not isinstance(filter, TermsFilter):
            raise ValueError("A response's status is one of its values; it has no range.")
        statuses = [str(value) for value in filter.values]
        either = []
        answered = f"SELECT 1 FROM responses WHERE responses.record_id = records.id{mine}"
        if ResponseStatusFilter.pending.value in statuses:
            # Pending is what has no answer yet (of this person, where one is named).
            either.append(f"NOT EXISTS ({answered})")
        submitted = [value for value in statuses if value != ResponseStatusFilter.pending.value]
        if submitted:
            either.append(
                f"EXISTS ({answered} "
                f"AND CAST(responses.status AS TEXT) IN ({self._bind_all(submitted)}))"
            )
        return f"({' OR '.join(either)})"

    def _suggestion_value(self, scope: SuggestionFilterScope) -> dict[str, str]:
        part = "score" if scope.property == "score" else "value"
        leaves = self._dialect.leaves(f"suggestions.{part}", (), self._bind)
        column = {
            name: self._dialect.of_column(f"suggestions.{name}") for name in ("agent", "type")
        }
        return {
            "from": "suggestions JOIN questions ON questions.id = suggestions.question_id, "
            f"{leaves}",
            "where": "suggestions.record_id = records.id "
            f"AND questions.name = {self._bind(scope.question)}",
            "value": column.get(scope.property, "leaf.atom"),
        }

    def _sort_value(self, scope: FilterScope) -> str:
        if isinstance(scope, RecordFilterScope):
            return self._dialect.of_record(_known(scope.property))
        if isinstance(scope, MetadataFilterScope):
            return self.metadata(scope.metadata_property)
        if isinstance(scope, SuggestionFilterScope):
            inside = self._suggestion_value(scope)
            value = self._dialect.middle(inside["value"])
            return f"(SELECT {value} FROM {inside['from']} WHERE {inside['where']})"
        mine = f" AND responses.user_id = {self._bind(scope.user.id.hex)}" if scope.user else ""
        value = (
            self._dialect.value(_VALUES, (scope.question, "value"), self._bind)
            if scope.question
            else self._dialect.of_column("responses.status")
        )
        return (
            f"(SELECT {self._dialect.middle(value)} FROM responses "
            f"WHERE responses.record_id = records.id{mine})"
        )

    def _compare(self, filter: Any, value: str) -> str:
        """Compare a value of JSON, which has a type, with the value of a filter, which is text."""
        if isinstance(filter, TermsFilter):
            texts = [str(wanted) for wanted in filter.values]
            either = [f"{self._dialect.text(value)} IN ({self._bind_all(texts)})"]
            numbers = [number for v in filter.values if (number := _number(v)) is not None]
            if numbers:  # 1, 1.0 and 1e0 are one number
                bound = [self._dialect.bound_number(number) for number in numbers]
                either.append(f"{self._dialect.number(value)} IN ({self._bind_all(bound)})")
            return f"({' OR '.join(either)})"
        if isinstance(filter, RangeFilter):
            bounds = []
            for sign, bound in ((">=", filter.ge), ("<=", filter.le)):
                if bound is not None:
                    number = _number(bound)
                    if number is None:
                        compared, limit = self._dialect.string(value), bound
                    else:
                        compared = self._dialect.number(value)
                        limit = self._dialect.bound_number(number)
                    bounds.append(f"{compared} {sign} {self._bind(limit)}")
            return f"({' AND '.join(bounds)})"
        raise ValueError(f"There is no such filter here: {filter!r}")

    def _stored(self, name: str, value: Any, sign: str) -> Any:
        """Return what a record's column is compared with.

        Ids have no dashes here. Times are in UTC and have no zone; a day alone is its first moment
        as a lower bound, and its last as an upper one.
        """
        if name == "id":
            return str(value).replace("-", "").lower()
        if name not in _TIMES:
            return str(value)
        try:
            moment = datetime.fromisoformat(str(value))
            if len(str(value)) <= len("2026-01-31") and sign == "<=":
                moment = datetime.combine(moment.date(), time.max)
            if moment.tzinfo is not None:
                moment = moment.astimezone(UTC).replace(tzinfo=None)
        except (ValueError, OverflowError):
            raise ValueError(f"{value!r} is not a time such as 2026-01-31T12:00:00.") from None
        return self._dialect.bound_time(moment)

    def _bind(self, value: Any) -> str:
        name = f"p{len(self._parameters)}"
        self._parameters[name] = value
        return f":{name}"

    def _bind_all(self, values: list[Any]) -> str:
        return ", ".join(self._bind(value) for value in values)


def _known(name: Any) -> str:
    """Return a record's column; it goes into SQL as it is, so it must be one of these."""
    if str(name) not in _COLUMNS:
        raise ValueError(f"{name!r} is none of {', '.join(_COLUMNS)}.")
    return str(name)


def _number(value: Any) -> int | float | None:
    """Return what a value is as a number that the database can hold, or None."""
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value, re.ASCII):
            return None
        if re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII):
            return int(value)
    return float(value)
