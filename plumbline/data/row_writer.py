"""Writing rows as Parquet while they come; later rows may bring any new columns and types.

Memory holds the rows of one row group. A row group has the columns and types of all rows up to its
end; where one brings new ones, a new file begins. At the end, files of several schemas are copied
into one, group by group. What a row does not have is null, and so is an object without any key
(``{}``) in a row group in which none has a key: Parquet has no such type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.errors import DataError

ROW_GROUP = 32 * 2**20
"""Bytes of rows, as Arrow holds them, after which a row group ends."""
#: Of so many rows, and about so many bytes, a table is made at a time.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 250, 4 * 2**20
_FIRST_ROWS = 16
_PARTIAL = ".partial"


class RowWriter:
    """Writes one Parquet file of rows, as ``datasets`` writes it.

    The file is there when `finish` returns, and not before.
    """

    def __init__(self, path: Path, row_group: int = ROW_GROUP) -> None:
        self.path, self.rows = path, 0
        self._row_group = row_group
        self._waiting: list[dict[str, Any]] = []
        self._at_once = _FIRST_ROWS
        self._group: list[pa.Table] = []
        self._schema = pa.schema([])
        self._parts: list[Path] = []
        self._file: _GroupFile | None = None
        self._whole: Path | None = None
        for left in path.parent.glob(f"{path.name}.*{_PARTIAL}"):  # by one that was killed
            left.unlink()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row. Raises `DataError` where a value is of another kind than the column's."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= self._at_once:
            self._take_waiting()

    def finish(self) -> list[str]:
        """Write what is left, and have the file in its place; return its columns."""
        whole = self.complete()
        whole.replace(self.path)
        self._remove_parts()
        return list(self._schema.names)

    @property
    def schema(self) -> pa.Schema:
        """Columns and types of all rows, as they are written; known once they are complete."""
        return _with_keys(self._schema)

    def complete(self) -> Path:
        """Write what is left to a file that is not in its place yet; return that file."""
        if self._whole is not None:
            return self._whole
        self._take_waiting()
        if self._group or self._file is None:
            self._write_group()
        self._close()
        whole = self._parts[0]
        if len(self._parts) > 1:
            whole = self._next_part()
            self._file = _GroupFile(whole, self.schema)
            for group in self._groups(self._parts[:-1]):
                self._file.write(self._in_one([group]))
            self._close()
        self._whole = whole
        return whole

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is not finished."""
        if self._file is not None:
            self._file.abandon()
        self._remove_parts()

    def _take_waiting(self) -> None:
        """Make a table of the rows that wait; write a group where there is enough for one."""
        names = dict.fromkeys(name for row in self._waiting for name in row)
        if names:
            table = pa.Table.from_arrays([self._array(name) for name in names], list(names))
            self._at_once = max(
                1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE * table.num_rows // max(1, table.nbytes))
            )
            self._group.append(table)
        self._waiting.clear()
        if sum(table.nbytes for table in self._group) >= self._row_group:
            self._write_group()

    def _array(self, name: str) -> pa.Array:
        try:
            return pa.array([row.get(name) for row in self._waiting])
        except UnicodeEncodeError:
            raise self._unwritable(
                name, "a text with half a character", "Replace it by U+FFFD"
            ) from None
        except OverflowError:
            raise self._unwritable(
                name, "a whole number of more than 64 bits", "Write it as a text"
            ) from None
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise self._mixed(name, error) from None

    def _unwritable(self, name: str, what: str, remedy: str) -> DataError:
        return DataError(
            f"{self.path} cannot be written: up to row {self.rows}, the column {name!r} holds "
            f"{what}. {remedy}, or leave the column out."
        )

    def _mixed(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self.path} cannot be written: up to row {self.rows}, the column {name!r} holds "
            f"values of different kinds ({str(error).splitlines()[0].rstrip('.')}). Make them all "
            "texts or all numbers, or leave the column out."
        )

    def _write_group(self) -> None:
        schema = self._unified([table.schema for table in self._group])
        if self._file is None or schema != self._schema:
            self._close()
            self._schema = schema
            self._file = _GroupFile(self._next_part(), self.schema)
        if self._group:
            self._file.write(self._in_one(self._group))
        self._group.clear()

    def _in_one(self, tables: list[pa.Table]) -> pa.Table:
        """Return rows as one table, with the columns and types of all rows so far."""
        try:
            whole = pa.concat_tables(
                [self._schema.empty_table(), *tables], promote_options="permissive"
            )
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.path} cannot be written: up to row {self.rows}, a column of numbers with "
                f"fractions also holds a whole number that cannot be one of them ({error}). Write "
                "the column as text, or leave it out."
            ) from None
        for place, field in enumerate(self.schema):
            if field != self._schema.field(place):
                held = map(_without_empty, whole.column(place).to_pylist())
                whole = whole.set_column(place, field, pa.array(held, field.type))
        return whole.combine_chunks()

    def _unified(self, schemas: list[pa.Schema]) -> pa.Schema:
        """Return the columns and types of all rows so far."""
        whole = self._schema
        for schema in schemas:
            if schema == whole:
                continue
            try:
                whole = pa.unify_schemas([whole, schema], promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise self._mixed(*_different_kinds(whole, schema)) from None
        return whole

    def _next_part(self) -> Path:
        path = self.path.with_name(f"{self.path.name}.{len(self._parts)}{_PARTIAL}")
        self._parts.append(path)
        return path

    def _groups(self, parts: list[Path]) -> Iterator[pa.Table]:
        for part in parts:
            with pq.ParquetFile(part, pre_buffer=False) as file:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _remove_parts(self) -> None:
        for part in self._parts:
            part.unlink(missing_ok=True)


def _different_kinds(first: pa.Schema, second: pa.Schema) -> tuple[str, Exception]:
    """Return the first column that has no common type in two schemas, and what Arrow says."""
    for name in first.names:
        if name in second.names:
            fields = [pa.schema([schema.field(name)]) for schema in (first, second)]
            try:
                pa.unify_schemas(fields, promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                return name, error
    raise AssertionError("every column has a common type")


def _with_keys(schema: pa.Schema) -> pa.Schema:
    """Return a schema with nulls for objects without any key, which Parquet does not have."""
    return pa.schema([field.with_type(_with_key(field.type)) for field in schema])


def _with_key(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        held = [field.with_type(_with_key(field.type)) for field in kind]
        return pa.struct(held) if held else pa.null()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_with_key(kind.value_type)))
    return kind


def _without_empty(value: Any) -> Any:
    """Return a value with null for every object without any key."""
    if isinstance(value, Mapping):
        return {name: _without_empty(held) for name, held in value.items()} or None
    return [_without_empty(held) for held in value] if isinstance(value, list) else value


class _GroupFile:
    """A Parquet file that ``datasets`` would write in the same way, with its features.

    A row group is written to the disk once all of it is encoded: where a disk is full in the midst
    of one, Arrow would end the whole process (SIGABRT) instead of raising `OSError`.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from datasets import Features, config

        cut = config.DEFAULT_CDC_OPTIONS
        self._encoded, self._stream = BytesIO(), path.open("wb")
        self._writer = pq.ParquetWriter(
            self._encoded,
            Features.from_arrow_schema(schema).arrow_schema,
            use_content_defined_chunking=cut,
            write_page_index=True,
        )
        self._writer.add_key_value_metadata({"content_defined_chunking": json.dumps(cut)})

    def write(self, group: pa.Table) -> None:
        """Write a row group."""
        self._writer.write_table(group)
        self._to_disk()

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()
        self._to_disk()
        self._stream.close()

    def abandon(self) -> None:
        """Leave the file as it is."""
        with suppress(OSError):  # what is left in a buffer does not matter
            self._stream.close()

    def _to_disk(self) -> None:
        self._stream.write(self._encoded.getbuffer())
        self._encoded.seek(0)
        self._encoded.truncate()
