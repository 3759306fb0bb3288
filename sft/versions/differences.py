"""What differs between two versions of a dataset: rows, sources, steps and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from plumbline.data.records import Row, split_file, without_nulls
from plumbline.runs.artifacts import Artifact, read_json
from plumbline.runs.run import flat_settings
from sft.build.dataset import BUILD_FILE
from sft.duplicates.exact import exact_key

_BATCH = 1000
#: Rows that are shown of each kind of change.
SHOWN = 5


class Place(NamedTuple):
    """Where a row came from, and how it begins."""

    split: str
    origin: str
    row: int
    beginning: str


class Difference(NamedTuple):
    """What differs from one version to another."""

    added: dict[str, int]
    """Rows that only the second has, by split."""
    removed: dict[str, int]
    """Rows that only the first has, by split."""
    moved: int
    """Rows that are in another split."""
    same: int
    examples: dict[str, list[Place]]
    """Some rows that were added, and some that were removed."""
    settings: dict[str, tuple[str, str]]
    """Settings that differ: before and after, as JSON."""
    reasons: dict[str, tuple[int, int]]
    """Rows left out by reason, before and after, where the numbers differ."""

    @property
    def is_empty(self) -> bool:
        """Whether the rows are the same."""
        return not (self.added or self.removed or self.moved)


def compare(first: Artifact, second: Artifact) -> Difference:
    """Compare two versions by the content of their rows."""
    before, after = _rows_by_key(first.path), _rows_by_key(second.path)
    added, removed = after.keys() - before.keys(), before.keys() - after.keys()
    both = before.keys() & after.keys()
    return Difference(
        added=dict(Counter(after[key] for key in sorted(added))),
        removed=dict(Counter(before[key] for key in sorted(removed))),
        moved=sum(before[key] != after[key] for key in both),
        same=sum(before[key] == after[key] for key in both),
        examples={
            "added": _places(second.path, added),
            "removed": _places(first.path, removed),
        },
        settings=_changed(_settings(first), _settings(second)),
        reasons=_reasons(first, second),
    )


def rows_of(folder: Path, split: str) -> Iterator[Row]:
    """Yield the rows of a split, without reading all of it at once."""
    with pq.ParquetFile(split_file(folder, split), pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                row["messages"] = [without_nulls(turn) for turn in row["messages"]]
                yield row


def _rows_by_key(folder: Path) -> dict[bytes, str]:
    return {exact_key(row): split for split in ("test", "train") for row in rows_of(folder, split)}


def _places(folder: Path, keys: set[bytes]) -> list[Place]:
    places: list[Place] = []
    for split in ("train", "test"):
        for row in rows_of(folder, split) if keys else ():
            if len(places) >= SHOWN:
                return places
            if exact_key(row) in keys:
                beginning = " ".join(row["messages"][-1]["content"].split())[:80]
                places.append(Place(split, row["origin"], row["row"], beginning))
    return places


def _settings(artifact: Artifact) -> dict[str, str]:
    """Return the settings and sources of a build, flat."""
    arguments: Any = artifact.manifest.arguments.get("arguments", {})
    config = arguments.get("config", {}).get("values", {})
    flat = flat_settings({name: held for name, held in config.items() if name != "steps"})
    for number, step in enumerate(config.get("steps", ()), 1):
        flat |= flat_settings(step, f"steps[{number}].")
    return flat | {"data_seed": str(arguments.get("data_seed"))}


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    names = sorted(before.keys() | after.keys())
    return {
        name: (before.get(name, "–"), after.get(name, "–"))
        for name in names
        if before.get(name) != after.get(name)
    }


def _reasons(first: Artifact, second: Artifact) -> dict[str, tuple[int, int]]:
    before, after = _left_out(first.path), _left_out(second.path)
    return {
        reason: (before[reason], after[reason])
        for reason in sorted(before.keys() | after.keys())
        if before[reason] != after[reason]
    }


def _left_out(folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    if (folder / BUILD_FILE).is_file():
        for source in read_json(folder / BUILD_FILE)["sources"]:
            counts.update(source["left_out"])
    return counts
