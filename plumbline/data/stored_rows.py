"""The rows of a split in any order, without holding them as Python objects.

A Parquet file gives one row only by decoding thousands. So a split is decoded once into a file that
is mapped into memory: a row costs some tens of microseconds, and the system keeps of the file what
it has room for. On disk it takes as much as its texts. An encrypted split is decoded in memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import overload

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.data.records import Row, rows_at_once, rows_of_batch, split_file


class StoredRows(Sequence[Row]):
    """The rows of one split of a dataset folder, read from ``scratch`` as they are asked for."""

    def __init__(self, folder: Path, split: str, scratch: Path) -> None:
        source = split_file(folder, split)
        with pq.ParquetFile(source, pre_buffer=False) as file:
            if isinstance(source, BytesIO):
                self._batches = list(file.iter_batches(rows_at_once(file)))
            else:
                scratch.mkdir(parents=True, exist_ok=True)
                self._batches = _mapped(file, scratch / f"{split}.arrow")
        sizes: list[int] = [batch.num_rows for batch in self._batches]
        self._starts = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._starts[-1]

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        """Return a row, or a list of rows."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        place = range(len(self))[place]  # counts from the end, too, and raises IndexError
        number = bisect_right(self._starts, place) - 1
        (row,) = rows_of_batch(self._batches[number].slice(place - self._starts[number], 1))
        return row

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows in order."""
        for batch in self._batches:
            yield from rows_of_batch(batch)


def _mapped(file: pq.ParquetFile, path: Path) -> list[pa.RecordBatch]:
    """Return the rows of a Parquet file as batches of a file that is mapped into memory."""
    path.unlink(missing_ok=True)  # what is mapped of an earlier one stays as it is
    with pa.ipc.new_file(str(path), file.schema_arrow) as writer:
        for batch in file.iter_batches(rows_at_once(file)):
            writer.write_batch(batch)
    mapped = pa.ipc.open_file(pa.memory_map(str(path)))
    return [mapped.get_batch(number) for number in range(mapped.num_record_batches)]
