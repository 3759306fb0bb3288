"""Encoded rows in an Arrow file: written while they are made, and read by memory map.

So a training holds none of its rows as Python objects: each is read from the file when a batch asks
for it, and what the system keeps of the file in memory it gives back when others need the memory.
The file is in the stage's scratch folder, which is deleted when the stage is done. A stage that
was killed leaves it there, and writes it again when it resumes. Where several processes share a
training, the first one tokenizes and writes, and the others wait for its file and map it.
"""

from __future__ import annotations

import json
import shutil
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from plumbline.data.encryption import is_encrypted
from plumbline.errors import SystemFailedError
from plumbline.runs.artifacts import read_json, write_json
from plumbline.runs.processes import this_process

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset

    from plumbline.runs.artifacts import Artifact
    from plumbline.runs.stage import Stage

T = TypeVar("T")

#: Rows that are encoded, or written, at once: so many are Python objects. Of large ones fewer, of
#: which the texts have so many characters, or the lists so many numbers.
ROWS_AT_ONCE, SIZE_AT_ONCE = 500, 2 * 2**20
#: How often a process looks whether the first one has written the rows.
_SECONDS_BETWEEN_LOOKS = 0.05
Kind = Literal["ids", "lists of ids", "numbers", "number", "flag", "text", "object"]
"""What a column holds; an object is what JSON knows."""


class LazyRows(Sequence[T], Generic[T]):
    """Rows of which each is made whenever it is asked for, and none is held."""

    def __init__(self, count: int, read: Callable[[int], T]) -> None:
        """``read`` returns a row by its number, from 0 to ``count`` - 1."""
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> list[T]: ...
    def __getitem__(self, number: int | slice) -> T | list[T]:
        if isinstance(number, slice):
            return [self._read(place) for place in range(*number.indices(self._count))]
        place = number + self._count if number < 0 else number
        if not 0 <= place < self._count:
            raise IndexError(f"row {number} of {self._count}")
        return self._read(place)

    def __iter__(self) -> Iterator[T]:
        return map(self._read, range(self._count))


def empty_folder(stage: Stage, dataset: Artifact, *others: Artifact) -> Path | None:
    """Return the folder for a stage's rows, without those of an attempt that was killed.

    None where a dataset is encrypted: what is decrypted stays in memory. All processes of a stage
    have the same folder, which the first one writes to.
    """
    if stage.writes:
        shutil.rmtree(stage.rows, ignore_errors=True)
    return None if any(is_encrypted(read.path) for read in (dataset, *others)) else stage.rows


def file_in(folder: Path | None, name: str) -> Path | None:
    """Return a file of that folder, if there is one."""
    return None if folder is None else folder / name


def in_parts(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield rows in lists, each of as many as are worked on at once."""
    part: list[T] = []
    size = 0
    for row in rows:
        part.append(row)
        size += _characters(row)
        if len(part) == ROWS_AT_ONCE or size >= SIZE_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _characters(value: object) -> int:
    """Return how many characters the texts in a value have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def rows_at(rows: Sequence[T], numbers: Sequence[int] | np.ndarray) -> LazyRows[T]:
    """Return some of the rows, by their numbers."""
    return LazyRows(len(numbers), lambda place: rows[int(numbers[place])])


class RowFile:
    """Takes rows one by one and writes them to an Arrow file, some at a time.

    Of several processes with one file, the first writes it (``writes``). The others add no rows,
    and wait for that file where they ask for its rows, their number or ``notes``.
    """

    def __init__(self, columns: Mapping[str, Kind], file: Path | None) -> None:
        """``file`` None: keep the table in memory, which is for few rows."""
        import pyarrow as pa

        self._file, self._kinds = file, columns
        self.writes = file is None or this_process() == 0
        self.notes: dict[str, Any] = {}
        """What the other processes learn of the rows, as JSON."""
        self._waiting: list[Mapping[str, Any]] = []
        self._written, self._size = 0, 0
        if not self.writes:
            return
        self._schema = pa.schema([(name, _arrow_type(kind)) for name, kind in columns.items()])
        with _on_disk(file):
            if file is None:
                self._sink: Any = pa.BufferOutputStream()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                _note_of(file).unlink(missing_ok=True)
                if file.is_file():
                    file.unlink()  # one that is still read would lose its rows
                self._sink = pa.OSFile(str(file), "wb")
            self._writer = pa.ipc.new_stream(self._sink, self._schema)

    def __len__(self) -> int:
        """Return how many rows there are."""
        self.wait()
        return self._written + len(self._waiting)

    def wait(self) -> None:
        """Wait until the first process has written the file, where another one does."""
        if self.writes or self._written or self._file is None:
            return
        note = _note_of(self._file)
        while not note.exists():  # where the first process fails, all are ended
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        self._written, self.notes = read_json(note)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, which has a value for each column."""
        self._waiting.append(row)
        self._size += sum(len(value) for value in row.values() if isinstance(value, list))
        if len(self._waiting) == ROWS_AT_ONCE or self._size >= SIZE_AT_ONCE:
            self._write()

    def table(self) -> pa.Table:
        """End the file, and return it as a table, of which nothing is read yet."""
        import pyarrow as pa

        self._end()
        if self._file is None:
            return pa.ipc.open_stream(self._sink.getvalue()).read_all()
        with _on_disk(self._file):
            return pa.ipc.open_stream(pa.memory_map(str(self._file))).read_all()

    def dataset(self) -> Dataset:
        """End the file, and return it as a dataset; what is made of that goes to its folder."""
        from datasets import Dataset

        if self._file is None:
            return Dataset(self.table())
        self._end()
        with _on_disk(self._file):
            return Dataset.from_file(str(self._file))

    def _end(self) -> None:
        if not self.writes:
            self.wait()
            return
        self._write()
        with _on_disk(self._file):
            self._writer.close()
            if self._file is not None:
                self._sink.close()
                write_json(_note_of(self._file), [self._written, self.notes])

    def _write(self) -> None:
        import pyarrow as pa

        if not self._waiting:
            return
        columns = []
        for name, kind in self._kinds.items():
            values = [row[name] for row in self._waiting]
            columns.append(
                pa.array(map(_as_json, values) if kind == "object" else values, _arrow_type(kind))
            )
        with _on_disk(self._file):
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._written += len(self._waiting)
        self._waiting.clear()
        self._size = 0


class Lists:
    """A column of lists of numbers, of which each is read by the number of its row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._first = [0, *accumulate(map(len, chunks))]
        self._chunks = [
            (chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=True))
            for chunk in chunks
        ]

    def __getitem__(self, number: int) -> list[Any]:
        chunk = bisect_right(self._first, number) - 1
        offsets, values = self._chunks[chunk]
        place = number - self._first[chunk]
        numbers: list[Any] = values[offsets[place] : offsets[place + 1]].tolist()
        return numbers

    def lengths(self) -> np.ndarray:
        """Return how long each list is, [N]: 4 bytes a row."""
        import numpy as np

        return np.concatenate([np.diff(offsets) for offsets, _ in self._chunks])


class Texts:
    """A column of texts, of which each is read by the number of its row."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._first = [0, *accumulate(map(len, self._chunks))]

    def __getitem__(self, number: int) -> str:
        chunk = bisect_right(self._first, number) - 1
        text: str = self._chunks[chunk][number - self._first[chunk]].as_py()
        return text


def _note_of(file: Path) -> Path:
    """Return the file that says that a file of rows is whole, how many there are, and more."""
    return file.with_suffix(".json")


def _arrow_type(kind: Kind) -> Any:
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    types = {
        "ids": ids, "lists of ids": pa.list_(ids), "numbers": pa.list_(pa.float64()),
        "number": pa.int32(), "flag": pa.bool_(), "text": pa.string(), "object": pa.string(),
    }  # fmt: skip
    return types[kind]


def _as_json(value: object) -> str:
    """Return a value as JSON; what that does not know becomes text."""
    return json.dumps(value, ensure_ascii=False, default=str)


@contextmanager
def _on_disk(file: Path | None) -> Iterator[None]:
    """Raise `SystemFailedError` where a file cannot be written or read."""
    try:
        yield
    except OSError as error:
        raise SystemFailedError(
            f"The rows of a training, as token ids, cannot be kept in {file}: {error}. Free some "
            "room there (4 bytes a token; 8 for demonstrations), or give --home on another disk. "
            "The same command resumes."
        ) from error
