"""Rows between two passes over them: on disk, mapped into memory, read in any order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from plumbline.data.records import Row


class Block(NamedTuple):
    """Rows as they are written: encoded, with what is known of each without decoding it."""

    payloads: Sequence[bytes]
    """Each row as JSON."""
    source: Sequence[int]
    """The number of its source."""
    is_test: Sequence[bool]
    """Whether it is held out; false before the split."""
    difficulty: Sequence[float]
    """By which a curriculum is ordered."""
    keys: Sequence[Sequence[bytes]]
    """For each comparison, the key of each row."""


_as_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(row: Row) -> bytes:
    """Return a row as JSON."""
    return _as_json(row).encode()


class SpoolWriter:
    """Writes blocks of rows to a file that `Spool` reads."""

    def __init__(self, path: Path, key_bytes: Sequence[int]) -> None:
        self._path = path
        self._schema = pa.schema(
            [
                ("payload", pa.binary()),
                ("source", pa.int32()),
                ("is_test", pa.bool_()),
                ("difficulty", pa.float64()),
                *((f"key{n}", pa.binary(size)) for n, size in enumerate(key_bytes)),
            ]
        )
        self._writer = pa.ipc.new_file(str(path), self._schema)

    def write(self, block: Block) -> None:
        """Add rows."""
        if block.payloads:
            columns = [
                block.payloads, block.source, block.is_test, block.difficulty, *block.keys,
            ]  # fmt: skip
            arrays = [
                pa.array(column, field.type)
                for column, field in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))

    def __enter__(self) -> SpoolWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()


class Spool:
    """Rows on disk, in blocks; memory holds only what is read of them."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        self._blocks = [self._file.get_batch(n) for n in range(self._file.num_record_batches)]
        sizes = [block.num_rows for block in self._blocks]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1])

    def column(self, name: str) -> np.ndarray:
        """Return ``source``, ``is_test`` or ``difficulty`` of all rows."""
        kinds = {"source": np.int32, "is_test": np.bool_, "difficulty": np.float64}
        parts = [block.column(name).to_numpy(zero_copy_only=False) for block in self._blocks]
        return np.concatenate(parts) if parts else np.empty(0, kinds[name])

    def keys(self, number: int) -> list[np.ndarray]:
        """Return the keys of a comparison, [n, K] bytes for each block, mapped from the disk."""
        arrays = []
        for block in self._blocks:
            column = block.column(f"key{number}")
            values = np.frombuffer(column.buffers()[1], np.uint8)
            arrays.append(values[: block.num_rows * column.type.byte_width].reshape(
                block.num_rows, column.type.byte_width))  # fmt: skip
        return arrays

    def row(self, index: int) -> Row:
        """Return one row."""
        return self._row(index)

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Yield rows by their numbers, in any order."""
        return map(self._row, indices)

    def batches(self, alive: np.ndarray) -> Iterator[list[bytes]]:
        """Yield the encoded rows that are alive, block by block."""
        for start, block in zip(self._starts, self._blocks, strict=False):
            kept = alive[start : start + block.num_rows]
            payloads = block.column("payload").to_pylist() if kept.any() else []
            chosen = [text for text, keep in zip(payloads, kept, strict=False) if keep]
            if chosen:
                yield chosen

    def _row(self, index: int) -> Row:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        payload: Any = self._blocks[place].column("payload")[int(index - self._starts[place])]
        row: Row = json.loads(payload.as_py())
        return row
