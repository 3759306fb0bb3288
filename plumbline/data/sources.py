"""Where rows come from: a file, a folder that `datasets` reads, or a dataset of the hub."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from plumbline.data.byte_streams import plain_name
from plumbline.data.files import FILE_KINDS, read_rows, refuse_cut_stream
from plumbline.data.raw_rows import RawRow, whole_characters
from plumbline.errors import DataError
from plumbline.runs.artifacts import sha256
from plumbline.runs.calls import SourceFile

#: What `save_to_disk` writes beside the rows.
_SAVED = ("dataset_info.json", "dataset_dict.json")
#: Of files whose rows a folder may hold.
_ENDINGS = tuple(ending for kind in FILE_KINDS.values() for ending in kind.endings)
#: Most files in the folder of a dataset.
_MOST_FILES = 10_000
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class RowSource(Protocol):
    """Anything with rows."""

    @property
    def name(self) -> str:
        """What rows say that they come from."""
        ...

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        ...

    def rows(self) -> Iterator[RawRow]:
        """Yield the rows."""
        ...


@dataclass(frozen=True)
class Rows:
    """Rows that are in memory already."""

    name: str
    records: Iterable[Mapping[str, Any]]

    @property
    def place(self) -> str:
        """The same as the name."""
        return self.name

    def rows(self) -> Iterator[RawRow]:
        """Yield the rows."""
        for number, record in enumerate(self.records, 1):
            yield RawRow(number, f"row {number}", record)


@dataclass(frozen=True)
class Source:
    """A place with rows: what it is called, and whether ``datasets`` reads it."""

    place: str
    """A file, a folder, or an id of the hub."""
    split: str | None = None
    """Which split of a folder or a dataset of the hub. None: its only one, or ``train``."""
    config: str | None = None
    """Which configuration of it (its subset, as the hub says). None: the default."""
    is_dataset: bool = False

    @property
    def name(self) -> str:
        """What rows say that they come from."""
        name = self.place if self.is_dataset and not Path(self.place).exists() else ""
        parts = [name or Path(self.place).name, *filter(None, (self.config, self.split))]
        return ":".join(parts)

    def rows(self) -> Iterator[RawRow]:
        """Yield the rows. Raises `DataError` where they cannot be read, and what to do."""
        if not self.is_dataset:
            yield from read_rows(Path(self.place))
            return
        dataset = _load(self)
        with _readable(self):
            for number, record in enumerate(dataset, 1):
                whole = whole_characters(record)
                yield RawRow(number, f"row {number}", whole, is_repaired=whole != record)

    def digest(self) -> str:
        """Return what the content is known by: moving it does not change what is made of it."""
        path = Path(self.place)
        if path.is_file():
            return sha256(path)
        named = f"{self.config}\0{self.split}\n"
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            text = "".join(f"{file.relative_to(path)}\0{sha256(file)}\n" for file in files)
            return hashlib.sha256((named + text).encode()).hexdigest()
        return hashlib.sha256((named + _revision(self)).encode()).hexdigest()


def source_at(place: str | Path, folder: Path = Path()) -> Source:
    """Return the source that a setting names.

    ``data/rows.jsonl`` is a file, ``data/set`` a folder with a dataset, ``org/name`` a dataset of
    the hub where there is no such file or folder. A folder or dataset may be followed by a split,
    or by a configuration and a split: ``org/name:main:test``.
    """
    text = str(place)
    whole = folder / text  # an absolute path stays as it is
    if whole.is_file():
        return Source(str(whole))
    name, *rest = text.split(":")
    if len(rest) > 2:
        name, rest = text, []
    config, split = ([None] * 2 + rest)[-2:] if rest else (None, None)
    if name and (folder / name).is_dir():
        _check_size(folder / name)
        return Source(str(folder / name), split, config, is_dataset=True)
    # org/name, but not folder/rows.jsonl
    if _HUB_ID.fullmatch(name) and not Path(name).suffix[1:].isalpha():
        return Source(name, split, config, is_dataset=True)
    raise DataError(
        f"There is no file {whole} (looked for from {Path.cwd()}), and it is not a dataset of the "
        "hub (org/name). Correct its path in the command or the config."
    )


def _check_size(folder: Path) -> None:
    """Refuse a folder that cannot be one dataset: listing and hashing it would take very long."""
    count = 0
    for _, _, files in os.walk(folder):
        count += len(files)
        if count > _MOST_FILES:
            raise DataError(
                f"{folder} holds more than {_MOST_FILES:,} files, so it is not the folder of one "
                "dataset. Give the folder with the dataset's own files."
            )


def as_source(source: RowSource | SourceFile | Path) -> RowSource:
    """Return a source as it is, and a file as one."""
    if isinstance(source, SourceFile):
        return Source(str(source.path))
    return Source(str(source)) if isinstance(source, Path) else source


def _load(source: Source) -> Any:
    """Return the rows of a dataset's split, without copying a folder's into the user's cache."""
    with _readable(source):
        import datasets

        path = Path(source.place)
        if any((path / name).exists() for name in _SAVED):
            for file in sorted(path.rglob("*.arrow")):
                refuse_cut_stream(file)
            dataset = datasets.load_from_disk(source.place)
        else:
            dataset = datasets.load_dataset(
                source.place, source.config, split=None, streaming=path.is_dir()
            )
    if not isinstance(dataset, Mapping):
        return dataset
    split = source.split or ("train" if len(dataset) > 1 else next(iter(dataset)))
    if split not in dataset:
        raise DataError(
            f"{source.place} has no split {split!r}; it has {', '.join(dataset)}. Name one behind "
            f"a colon: {source.place}:{next(iter(dataset))}"
        )
    return dataset[split]


def _revision(source: Source) -> str:
    """Return what the hub's dataset is known by: the id of its content."""
    with _readable(source):
        import datasets

        builder = datasets.load_dataset_builder(source.place, source.config)
        return str(builder.hash or builder.config_id)


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turn what ``datasets`` raises into a sentence with what to do."""
    try:
        yield
    except DataError:
        raise
    except Exception as problem:  # it raises what its many readers and the network raise
        first = (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
        if Path(source.place).is_dir():
            first = _in_its_files(source.place) or first
            raise DataError(
                f"{source.place} cannot be read as a dataset: {first}. "
                "Give one of its files instead, or save it again with save_to_disk."
            ) from None
        raise DataError(
            f"There is no file or folder {source.place!r} here, and the hub's dataset of this name "
            f"cannot be had: {type(problem).__name__}: {first}. Check the name, or fetch the "
            "dataset where there is a network and give its folder."
        ) from None


def _in_its_files(folder: str) -> str | None:
    """Return what keeps the files of a folder from being one dataset, with the file and the row.

    ``datasets`` names neither. None where each can be read and all have the
    same columns, and for what `save_to_disk` wrote.
    """
    columns: dict[frozenset[str], Path] = {}
    if any((Path(folder) / name).exists() for name in _SAVED):
        return None
    for file in sorted(Path(folder).rglob("*")):
        is_data = file.is_file() and plain_name(file).endswith(_ENDINGS)
        if not is_data or any(part.startswith((".", "__")) for part in file.parts):
            continue
        try:
            for row in read_rows(file):
                if row.record is None:
                    return f"{file}, {row.place} {row.problem}"
                columns.setdefault(frozenset(row.record), file)
                if len(columns) > 1:
                    (names, first), (others, second) = columns.items()
                    differing = ", ".join(map(repr, sorted(names ^ others)))
                    return f"{first} and {second} ({row.place}) differ in the columns {differing}"
        except DataError as problem:
            return str(problem).rstrip(".")
    return None
