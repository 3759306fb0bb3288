"""What the SQL of the two databases differs in: values within JSON, text search, and a few types.

Argilla's tables are the same in both. A value within JSON keeps its type: to compare it, `text` is
any value as text, `number` is a number or NULL, and `string` is a text or NULL.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from typing_extensions import override

Bind = Callable[[Any], str]
"""Takes a value, and returns the name by which SQL reads it."""


class Dialect(Protocol):
    """The SQL of one database."""

    version: str
    """A query for the database's name and version, as the status page shows them."""
    status_type: str
    """The type of a record's status."""
    least_answers: str
    """How many submitted answers complete a record of ``datasets``."""

    def value(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        """Return the expression of a value within a column of JSON."""

    def leaves(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        """Return a table ``leaf`` of what is not a list or an object there, as ``leaf.atom``."""

    def of_column(self, column: str) -> str:
        """Return a column's value in the form of a value within JSON."""

    def text(self, value: str) -> str:
        """Return a value as text."""

    def number(self, value: str) -> str:
        """Return a value where it is a number, or NULL."""

    def string(self, value: str) -> str:
        """Return a value where it is a text, or NULL; texts are compared by code points."""

    def middle(self, value: str) -> str:
        """Return what several values are sorted by: numbers by their mean, texts by the first."""

    def of_record(self, name: str) -> str:
        """Return a record's column, to compare with what `bound_text` or `bound_time` returns."""

    def bound_number(self, number: int | float) -> Any:
        """Return a number as a parameter."""

    def bound_time(self, moment: datetime) -> Any:
        """Return a time without a zone as a parameter."""

    def holding(self, parameter: str, *, within: bool, prefix: bool) -> str:
        """Return FROM and WHERE of the ``texts`` that hold a term; ``within`` reads it as LIKE."""

    def term(self, words: str, *, prefix: bool) -> str:
        """Return a term of a search as a parameter."""

    def one_of_many(self, condition: str) -> str:
        """Return a condition so that planning many of them takes no longer than their number."""


class SQLite(Dialect):
    """SQLite: JSON by its functions, text search by FTS5."""

    version = "SELECT 'SQLite ' || sqlite_version() || ', FTS5'"
    status_type = "TEXT"
    least_answers = "json_extract(datasets.distribution, '$.min_submitted')"

    @override
    def value(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        return f"json_extract({column}, {bind(_path(names))})"

    @override
    def leaves(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        return f"json_tree({column}, {bind(_path(names))}) AS leaf"

    @override
    def of_column(self, column: str) -> str:
        return column

    @override
    def text(self, value: str) -> str:
        return f"CAST({value} AS TEXT)"

    @override
    def number(self, value: str) -> str:
        # To SQLite every text is greater than every number.
        return f"CASE WHEN typeof({value}) <> 'text' THEN {value} END"

    @override
    def string(self, value: str) -> str:
        return f"CASE WHEN typeof({value}) = 'text' THEN {value} END"

    @override
    def middle(self, value: str) -> str:
        return f"coalesce(avg({self.number(value)}), min({value}))"

    @override
    def of_record(self, name: str) -> str:
        return f"records.{name}"

    @override
    def bound_number(self, number: int | float) -> Any:
        return number

    @override
    def bound_time(self, moment: datetime) -> Any:
        # As it is stored: with a space, six decimals and no zone.
        return moment.isoformat(sep=" ", timespec="microseconds")

    @override
    def holding(self, parameter: str, *, within: bool, prefix: bool) -> str:
        if within:
            return f"plumbline_texts AS texts WHERE texts.content LIKE :{parameter} ESCAPE '\\'"
        return (
            "plumbline_search JOIN plumbline_texts AS texts "
            f"ON texts.id = plumbline_search.rowid WHERE plumbline_search MATCH :{parameter}"
        )

    @override
    def term(self, words: str, *, prefix: bool) -> str:
        # Always quoted, so that no word is taken for an operator.
        return '"' + words.replace('"', '""') + '"' + ("*" if prefix else "")

    @override
    def one_of_many(self, condition: str) -> str:
        return condition


class PostgreSQL(Dialect):
    """PostgreSQL: JSON as ``jsonb``, text search by ``tsvector`` (see `postgres_tables`)."""

    version = "SELECT 'PostgreSQL ' || current_setting('server_version') || ', full text'"
    status_type = "record_status_enum"
    least_answers = "CAST(datasets.distribution ->> 'min_submitted' AS integer)"

    @override
    def value(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        return f"nullif({self._inside(column, names, bind)}, 'null')"

    @override
    def leaves(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        kinds = " && ".join(f'@.type() != "{kind}"' for kind in ("object", "array", "null"))
        inside = self._inside(column, names, bind)
        return f"jsonb_path_query({inside}, 'strict $.** ? ({kinds})') AS leaf(atom)"

    @override
    def of_column(self, column: str) -> str:
        return f"to_jsonb({column})"

    @override
    def text(self, value: str) -> str:
        return f"({value} #>> '{{}}')"

    @override
    def number(self, value: str) -> str:
        return (
            f"CASE WHEN jsonb_typeof({value}) = 'number' THEN CAST({self.text(value)} AS numeric) "
            "END"
        )

    @override
    def string(self, value: str) -> str:
        plain = f"CASE WHEN jsonb_typeof({value}) = 'string' THEN {self.text(value)} END"
        return f'({plain} COLLATE "C")'

    @override
    def middle(self, value: str) -> str:
        number, string = self.number(value), self.string(value)
        return f"coalesce(to_jsonb(avg({number})), to_jsonb(min({string})))"

    @override
    def of_record(self, name: str) -> str:
        as_text = f"CAST(records.{name} AS text)"
        return {
            "id": f"replace({as_text}, '-', '')",
            "status": as_text,
            "external_id": 'records.external_id COLLATE "C"',
        }.get(name, f"records.{name}")

    @override
    def bound_number(self, number: int | float) -> Any:
        return Decimal(repr(number))  # the number as it is written, and not its nearest binary one

    @override
    def bound_time(self, moment: datetime) -> Any:
        return moment

    @override
    def holding(self, parameter: str, *, within: bool, prefix: bool) -> str:
        if within:
            return f"plumbline_texts AS texts WHERE texts.content ILIKE :{parameter} ESCAPE '\\'"
        query = f"plumbline_query(:{parameter}, {str(prefix).lower()})"
        return f"plumbline_texts AS texts WHERE texts.words @@ {query}"

    @override
    def term(self, words: str, *, prefix: bool) -> str:
        del prefix  # `plumbline_query` is told of it
        return words

    @override
    def one_of_many(self, condition: str) -> str:
        # Else each IN becomes a join, and to order 200 joins takes PostgreSQL minutes.
        return f"({condition}) IS TRUE"

    def _inside(self, column: str, names: tuple[str, ...], bind: Bind) -> str:
        path = ", ".join(bind(name) for name in names)
        return f"(plumbline_json({column}) #> CAST(ARRAY[{path}] AS text[]))"


def of_settings() -> Dialect:
    """Return the dialect of the database that Argilla was started with."""
    from argilla_server.settings import settings

    return PostgreSQL() if settings.database_is_postgresql else SQLite()


def _path(names: tuple[str, ...]) -> str:
    """Return a JSON path of SQLite whose names are taken literally."""
    return "$" + "".join('."' + name.replace('"', "") + '"' for name in names)
