"""Argilla's filters and orders as SQL over its own tables."""

from __future__ import annotations

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


class Conditions:
    """Conditions on ``records``, gathered one by one, with every value as a parameter."""

    def __init__(self, dataset_id: UUID) -> None:
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
        return f"json_extract(records.metadata, {self._bind(_path(name))})"

    def metadata_leaves(self, name: str) -> str:
        """Return the table of a metadata property's values; a property may be a list."""
        return f"json_tree(records.metadata, {self._bind(_path(name))})"

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
                f"EXISTS (SELECT 1 FROM {leaves} AS leaf "
                f"WHERE {self._compare(filter, 'leaf.atom')})"
            )
        else:
            self._conditions.append(self._compare(filter, _record_column(filter.scope)))

    def order_by(self, sort: list[Order]) -> str:
        """Return an ORDER BY; records without the value come last either way."""
        terms = []
        for order in sort:
            value = self._sort_value(order.scope)
            direction = "DESC" if str(order.order) == "desc" else "ASC"
            terms.append(f"{value} IS NULL, {value} {direction}")
        return ", ".join(terms)

    def _of_responses(self, filter: Any, scope: ResponseFilterScope) -> str:
        mine = f" AND responses.user_id = {self._bind(scope.user.id.hex)}" if scope.user else ""
        if scope.question:
            path = self._bind(_path(scope.question, "value"))
            return (
                "EXISTS (SELECT 1 FROM responses, json_tree(responses.\"values\", "
                f"{path}) AS leaf WHERE responses.record_id = records.id{mine} "
                f"AND {self._compare(filter, 'leaf.atom')})"
            )
        statuses = [str(value) for value in filter.values]
        either = []
        answered = f"SELECT 1 FROM responses WHERE responses.record_id = records.id{mine}"
        if ResponseStatusFilter.pending.value in statuses:
            # Pending is what has no answer yet (of this person, where one is named).
            either.append(f"NOT EXISTS ({answered})")
        given = [value for value in statuses if value != ResponseStatusFilter.pending.value]
        if given:
            either.append(f"EXISTS ({answered} AND responses.status IN ({self._bind_all(given)}))")
        return f"({' OR '.join(either)})" if either else "1"

    def _suggestion_value(self, scope: SuggestionFilterScope) -> dict[str, str]:
        source = (
            "suggestions JOIN questions ON questions.id = suggestions.question_id, "
            f"json_tree(suggestions.{'score' if scope.property == 'score' else 'value'}) AS leaf"
        )
        column = {"agent": "suggestions.agent", "type": "suggestions.type"}
        return {
            "from": source,
            "where": "suggestions.record_id = records.id "
            f"AND questions.name = {self._bind(scope.question)}",
            "value": column.get(scope.property, "leaf.atom"),
        }

    def _sort_value(self, scope: FilterScope) -> str:
        if isinstance(scope, RecordFilterScope):
            return _record_column(scope)
        if isinstance(scope, MetadataFilterScope):
            return self.metadata(scope.metadata_property)
        if isinstance(scope, SuggestionFilterScope):
            inside = self._suggestion_value(scope)
            return f"(SELECT avg({inside['value']}) FROM {inside['from']} WHERE {inside['where']})"
        mine = f" AND responses.user_id = {self._bind(scope.user.id.hex)}" if scope.user else ""
        value = (
            f"json_extract(responses.\"values\", {self._bind(_path(scope.question, 'value'))})"
            if scope.question
            else f"responses.{_known(scope.property, ('status', 'inserted_at', 'updated_at'))}"
        )
        return (
            f"(SELECT min({value}) FROM responses "
            f"WHERE responses.record_id = records.id{mine})"
        )

    def _compare(self, filter: Any, value: str) -> str:
        if isinstance(filter, TermsFilter):
            return f"CAST({value} AS TEXT) IN ({self._bind_all([str(v) for v in filter.values])})"
        if isinstance(filter, RangeFilter):
            bounds = [f"{value} IS NOT NULL"]
            for sign, bound in ((">=", filter.ge), ("<=", filter.le)):
                if bound is not None:
                    bounds.append(f"{value} {sign} {self._bind(_comparable(bound))}")
            return f"({' AND '.join(bounds)})"
        raise ValueError(f"There is no such filter here: {filter!r}")

    def _bind(self, value: Any) -> str:
        name = f"p{len(self._parameters)}"
        self._parameters[name] = value
        return f":{name}"

    def _bind_all(self, values: list[Any]) -> str:
        return ", ".join(self._bind(value) for value in values) or "NULL"


def _path(*names: str) -> str:
    """Return a JSON path whose names are taken literally."""
    return "$" + "".join('."' + name.replace('"', "") + '"' for name in names)


def _record_column(scope: RecordFilterScope) -> str:
    column = _known(scope.property, ("id", "external_id", "inserted_at", "updated_at", "status"))
    # Ids are asked for with dashes and stored without.
    dashed = "||'-'||".join(f"substr(records.id,{a},{n})" for a, n in _UUID_PARTS)
    return f"({dashed})" if column == "id" else f"records.{column}"


_UUID_PARTS = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))


def _known(name: str | None, allowed: tuple[str, ...]) -> str:
    """Return a column's name; it goes into SQL as it is, so it must be one of these."""
    if name is None or str(name) not in allowed:
        raise ValueError(f"{name!r} is none of {', '.join(allowed)}.")
    return str(name)


def _comparable(bound: Any) -> Any:
    """Return a bound as the database stores such values: times without the T and the zone."""
    if isinstance(bound, str) and len(bound) > 10 and bound[10] == "T":
        return bound.replace("T", " ").removesuffix("Z").removesuffix("+00:00")
    return bound
