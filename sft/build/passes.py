"""Passes over all rows: steps work in several processes, comparisons decide between passes.

Rows that steps have worked on are on disk, with a key of each row for the comparisons that follow.
The next pass reads those that are left. So memory holds a few batches, and what comparisons need:
a few bytes of each row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from plumbline.data.records import Row
from sft.build.ledger import Events, Ledger, LeftOutRow, record_of
from sft.build.mixing import ORDERS
from sft.build.splits import (
    KEY_BYTES,
    SplitRule,
    opening_key,
    split_of,
    those_that_open_as_held_out_ones,
)
from sft.build.spool import Block, Spool, SpoolWriter, encode
from sft.build.workers import map_in_order
from sft.cleaning.step import Compared, Comparison, Removal, RowFunction, StepConfig, StepContext
from sft.cleaning.steps import STEPS
from sft.sources import Demonstrations, Split

#: Rows that a process works on at a time.
BATCH = 500
#: The step that sees to it that no prompt is on both sides.
HELD_OUT = "held-out prompts"


@dataclass(frozen=True)
class Work:
    """What a process does with a batch of rows; everything in it can be sent to one."""

    steps: tuple[tuple[str, StepConfig], ...]
    """Steps with their labels."""
    compared: tuple[StepConfig | None, ...] = ()
    """The comparisons that rows are given keys for; None: that of held-out prompts."""
    splits: tuple[SplitRule, ...] = ()
    """How the rows of each source are split; empty: not in this pass."""
    share: float = 0.0
    data_seed: int = 0
    order: str = "as_read"

    def start(self, context: StepContext | None = None) -> Callable[[Batch], Done]:
        """Return the work, with its steps prepared."""
        context = (context or StepContext())._replace(data_seed=self.data_seed)
        functions = []
        for label, config in self.steps:
            step = STEPS[config.step]
            assert step.prepare is not None
            functions.append((label, step.prepare(config, context), step.makes_rows))
        keys = [
            opening_key() if config is None else _comparison(config).key(config)
            for config in self.compared
        ]
        return partial(self._do, functions, keys, ORDERS[self.order].difficulty)

    def _do(
        self,
        functions: Sequence[tuple[str, RowFunction, bool]],
        keys: Sequence[Callable[[Row], bytes]],
        difficulty: Callable[[Row], float] | None,
        batch: Batch,
    ) -> Done:
        rows = [json.loads(row) if isinstance(row, bytes) else row for row in batch]
        events = Events.none()
        for label, function, makes_rows in functions:
            if makes_rows:
                rows = self._split(rows)
                kept = [row for row in rows if row["split"] == "test"]
                rows = [row for row in rows if row["split"] == "train"]
                rows = kept + _apply(label, function, rows, events)
            else:
                rows = _apply(label, function, rows, events)
        rows = self._split(rows)
        block = Block(
            [encode(row) for row in rows],
            [row["source"] for row in rows],
            [row.get("split") == "test" for row in rows],
            [difficulty(row) if difficulty is not None else 0.0 for row in rows],
            [[key(row) for row in rows] for key in keys],
        )
        return Done(block, events, _columns(rows))

    def _split(self, rows: list[Row]) -> list[Row]:
        if not self.splits:
            return rows
        return [row if "split" in row else row | {"split": self._split_of(row)} for row in rows]

    def _split_of(self, row: Row) -> Split:
        return split_of(row, self.splits[row["source"]], self.share, self.data_seed)


Batch = Sequence[Row | bytes]


class Done(NamedTuple):
    """What a process made of a batch."""

    block: Block
    events: Events
    columns: frozenset[tuple[str, str]]
    """Columns of the rows, and ``messages.KEY`` for keys of their turns, each with its type."""


class Passed(NamedTuple):
    """What is left of all rows after the last pass."""

    spool: Spool
    alive: np.ndarray
    """[N] whether a row is left."""
    columns: frozenset[tuple[str, str]]


class Segment(NamedTuple):
    """Steps of one pass, and the comparisons after it."""

    steps: tuple[tuple[str, StepConfig], ...]
    comparisons: tuple[tuple[str, StepConfig | None], ...]


def labels_of(steps: Sequence[StepConfig]) -> list[str]:
    """Return the names of steps; a name that comes again has its number behind it."""
    names: list[str] = []
    for config in steps:
        again = sum(name.partition(" (")[0] == config.step for name in names) + 1
        names.append(config.step if again == 1 else f"{config.step} ({again})")
    return names


def run_passes(
    sources: Sequence[Demonstrations],
    steps: Sequence[StepConfig],
    *,
    folder: Path,
    ledger: Ledger,
    share: float,
    data_seed: int,
    order: str = "as_read",
    workers: int | None = 1,
    context: StepContext | None = None,
) -> Passed:
    """Read all sources and take their rows through the steps; return what is left on disk.

    ``context`` holds what steps in this process may use.
    """
    # Held-out sources are read first: of two that are equal, the first stays.
    reading = sorted(range(len(sources)), key=lambda number: sources[number].split != "test")
    held_out = any(source.split == "test" for source in sources)
    others: Split | None = "train" if held_out else None
    rules = tuple(SplitRule(source.split or others, source.may_grow) for source in sources)
    settings = Work((), data_seed=data_seed, order=order, share=share)
    segments = _segments(steps, held_out=held_out)
    batches: Iterator[Batch] = _batches(sources, reading, ledger)
    for number, segment in enumerate(segments):
        last = number == len(segments) - 1
        compared = tuple(config for _, config in segment.comparisons)
        needs_split = last or None in compared
        path = folder / f"pass-{number}.arrow"
        work = replace(settings, compared=compared, splits=rules if needs_split else ())
        columns = _write(path, batches, segment, work, ledger, workers, context)
        spool = Spool(path)
        alive = np.ones(len(spool), dtype=np.bool_)
        for place, (label, config) in enumerate(segment.comparisons):
            entered = np.bincount(spool.column("source")[alive], minlength=len(sources))
            ledger.enter(label, entered.tolist())
            if alive.any():
                _leave_out(label, config, Compared(spool.keys(place), alive, spool.row), ledger)
        batches = spool.batches(alive)
        if number:
            (folder / f"pass-{number - 1}.arrow").unlink()
    return Passed(spool, alive, columns)


def _segments(steps: Sequence[StepConfig], *, held_out: bool) -> list[Segment]:
    """Cut the steps into passes: each ends with the comparisons that follow its steps."""
    entries: list[tuple[str, StepConfig | None]] = [*zip(labels_of(steps), steps, strict=True)]
    if held_out:  # before rows are made of training rows
        creating = sum(STEPS[config.step].makes_rows for config in steps)
        entries.insert(len(entries) - creating, (HELD_OUT, None))
    segments = [Segment((), ())]
    for label, config in entries:
        before = segments[-1]
        if config is None or STEPS[config.step].compare is not None:
            segments[-1] = before._replace(comparisons=(*before.comparisons, (label, config)))
        elif before.comparisons:
            segments.append(Segment(((label, config),), ()))
        else:
            segments[-1] = before._replace(steps=(*before.steps, (label, config)))
    return segments


def _batches(
    sources: Sequence[Demonstrations], reading: Sequence[int], ledger: Ledger
) -> Iterator[Batch]:
    """Yield the rows of all sources in batches, each row with the number of its source."""
    for number in reading:
        source = sources[number]
        known = {"source": number} | ({} if source.tier is None else {"tier": source.tier})
        rows = iter(source)
        while batch := [row | known for row in islice(rows, BATCH)]:
            yield batch
        ledger.read(number, source.rows_read, source.dropped)


def _write(
    path: Path,
    batches: Iterator[Batch],
    segment: Segment,
    work: Work,
    ledger: Ledger,
    workers: int | None,
    context: StepContext | None,
) -> frozenset[tuple[str, str]]:
    """Take rows through the steps of a pass, and write what is left of them."""
    results: Iterable[Done] | None = None
    columns: set[tuple[str, str]] = set()
    stretches = _stretches(segment.steps)
    for number, (here, steps) in enumerate(stretches):
        last = number == len(stretches) - 1
        part = replace(work, steps=steps, compared=work.compared if last else ())
        if results is not None:
            batches = _taken(results, ledger)
        results = (
            map(part.start(context), batches)
            if here
            else map_in_order(part.start, batches, workers)
        )
    sizes = [KEY_BYTES if c is None else _comparison(c).key_bytes(c) for c in work.compared]
    with SpoolWriter(path, sizes) as writer:
        for done in results or ():
            ledger.add(done.events)
            columns |= done.columns
            writer.write(done.block)
    return frozenset(columns)


def _stretches(
    steps: Sequence[tuple[str, StepConfig]],
) -> list[tuple[bool, tuple[tuple[str, StepConfig], ...]]]:
    """Cut steps into stretches that run in the workers and in this process (True)."""
    stretches: list[tuple[bool, tuple[tuple[str, StepConfig], ...]]] = []
    for entry in steps:
        here = STEPS[entry[1].step].runs_in == "main"
        if stretches and stretches[-1][0] == here:
            stretches[-1] = (here, (*stretches[-1][1], entry))
        else:
            stretches.append((here, (entry,)))
    return stretches or [(False, ())]


def _taken(results: Iterable[Done], ledger: Ledger) -> Iterator[Batch]:
    for done in results:
        ledger.add(done.events)
        yield done.block.payloads


def _apply(label: str, function: RowFunction, rows: list[Row], events: Events) -> list[Row]:
    """Apply a step to rows, and note what it did to each."""
    kept: list[Row] = []
    for row, outcome in zip(rows, function(rows), strict=True):
        source = row["source"]
        events.entered[label, source] += 1
        if outcome.reason is not None:
            events.left_out.append(
                LeftOutRow(
                    label, source, row["origin"], row["row"], outcome.reason, record_of(row),
                    outcome.detail,
                )
            )  # fmt: skip
            continue
        kept += outcome.rows
        if len(outcome.rows) > 1:
            events.created[label, source] += len(outcome.rows) - 1
        for change in outcome.changes:
            events.changed[label, source, change] += 1
    return kept


def _leave_out(label: str, config: StepConfig | None, rows: Compared, ledger: Ledger) -> None:
    """Let a comparison decide, and take out the rows that it leaves out."""
    removals: Iterable[Removal] = (
        those_that_open_as_held_out_ones(rows)
        if config is None
        else _comparison(config).decide(config, rows)
    )
    out = []
    for removal in removals:
        row = rows.row(removal.place)
        ledger.leave_out(
            LeftOutRow(
                label, row["source"], row["origin"], row["row"], removal.reason, record_of(row),
                removal.detail,
            )
        )  # fmt: skip
        out.append(removal.place)
    rows.alive[out] = False


def _comparison(config: StepConfig) -> Comparison:
    comparison = STEPS[config.step].compare
    assert comparison is not None
    return comparison


def _columns(rows: Sequence[Row]) -> frozenset[tuple[str, str]]:
    columns: set[tuple[str, str]] = set()
    for row in rows:
        for name, value in row.items():
            is_large = isinstance(value, int) and value.bit_length() > 63
            columns.add((name, "str" if is_large else type(value).__name__))
            if name == "messages":
                columns.update((f"messages.{key}", "") for turn in value for key in turn)
    return frozenset(columns)
