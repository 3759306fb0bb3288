"""Writing rows as Parquet in TRL's format: one schema for all, a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.data.records import Row
from plumbline.errors import DataError

_ROW_GROUP = 4096
#: Columns that rows have only while they are built.
_WHILE_BUILT = ("source", "split")
_CALLS = pa.list_(
    pa.struct(
        [
            ("id", pa.string()),
            ("type", pa.string()),
            ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),
        ]
    )
)
_TURN = {
    "role": pa.string(),
    "content": pa.string(),
    "reasoning_content": pa.string(),
    "tool_calls": _CALLS,
    "name": pa.string(),
    "tool_call_id": pa.string(),
    "weight": pa.int64(),
}
_TYPES = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string()}
_FIRST = ("messages", "form", "tools", "wrong_answers", "origin", "row", "tier")


def schema_of(columns: Iterable[tuple[str, str]]) -> pa.Schema:
    """Return the schema of rows with these columns: only what some row has.

    Columns are names with the type of a value; a column whose values have several types is text,
    but for whole numbers beside others.
    """
    types: dict[str, set[str]] = {}
    for name, kind in columns:
        types.setdefault(name, set()).add(kind)
    keys = [key for key in _TURN if f"messages.{key}" in types]
    fields = [("messages", pa.list_(pa.struct([(key, _TURN[key]) for key in keys])))]
    others = sorted(n for n in types if n not in _FIRST and not n.startswith("messages."))
    for name in (*_FIRST[1:], *others):
        if name in types and name not in _WHILE_BUILT:
            fields.append((name, _type_of(types[name])))
    return pa.schema(fields)


def _type_of(kinds: set[str]) -> pa.DataType:
    if kinds <= {"int", "float"} and len(kinds) == 2:
        return pa.float64()
    return _TYPES.get(next(iter(kinds)), pa.string()) if len(kinds) == 1 else pa.string()


def write_table(path: Path, rows: Iterable[Row], schema: pa.Schema) -> int:
    """Write rows as Parquet; return their number."""
    rows = iter(rows)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            arrays = [_array(path, group, field) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(group)
    return count


def _array(path: Path, rows: Iterable[Row], field: pa.Field) -> pa.Array:
    try:
        return pa.array(list(_values(rows, field)), field.type)
    except pa.ArrowInvalid as error:  # numbers are floats where some have fractions
        raise DataError(
            f"{path.name} cannot be written: the column {field.name!r} of numbers with fractions "
            f"also holds a whole number that cannot be one of them ({error}). Write the column as "
            "text, or do not keep it."
        ) from None


def _values(rows: Iterable[Row], field: pa.Field) -> Iterator[object]:
    is_text = field.type == pa.string()
    for row in rows:
        value = row.get(field.name)
        yield str(value) if is_text and value is not None else value
