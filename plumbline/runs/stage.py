"""What a stage is: a function that makes one artefact, and what it works with while it runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from plumbline.dropped import LeftOut
from plumbline.runs.artifacts import PARTIAL, read_json
from plumbline.runs.checkpoints import CheckpointFolder
from plumbline.runs.metrics import METRICS, Listener, MetricsLog
from plumbline.runs.progress import Bar, Reporter

#: What a stage knows of the run that makes it, beside its checkpoints.
PLACE = "place.json"
#: The folder of a stage's parts, and the file in a part's own folder that says that it is done.
PARTS, DONE = "parts", "done.json"
#: The folder of the rows that a training reads, as token ids, and of files made of them.
ROWS = "rows"
#: Figures of a training that depend on the clock, in the folder where trackers write.
SPEED = "speed.jsonl"
F = TypeVar("F", bound=Callable[..., Mapping[str, float | None]])


TrainsIn = Literal["one process", "several processes"]


def stage(
    kind: str,
    *,
    version: int = 1,
    trains_in: TrainsIn | None = None,
    shares_weights: bool = False,
    spreads_rows: bool = False,
) -> Callable[[F], F]:
    """Declare a function as a stage that makes artefacts of a kind.

    Its first argument is the `Stage` to work in; it returns the artefact's headline figures.
    ``version`` is that of the artefact's layout. ``trains_in``: for a training, whether several
    processes can share it. ``shares_weights``: whether each of them can then hold a share of the
    weights only (`plumbline.training.sharding`). ``spreads_rows``: for any other stage, whether it
    spreads its rows over several processes (`plumbline.runs.processes.spread`); else it has one.
    """

    def mark(function: F) -> F:
        function.artifact_kind = kind  # type: ignore[attr-defined]
        function.schema_version = version  # type: ignore[attr-defined]
        function.trains_in = trains_in  # type: ignore[attr-defined]
        function.shares_weights = shares_weights  # type: ignore[attr-defined]
        function.spreads_rows = spreads_rows  # type: ignore[attr-defined]
        return function

    return mark


def forget_rows(partial: Path) -> None:
    """Delete the rows of an attempt that was stopped, before the processes of the next one start.

    Else those that wait for the first process to write them would take these.
    """
    for folder in (partial, *partial.glob(f"{PARTS}/*")):
        shutil.rmtree(folder / "scratch" / ROWS, ignore_errors=True)


class Stage:
    """What a stage function works with while it runs."""

    def __init__(self, partial: Path, reporter: Reporter, process: int = 0) -> None:
        """Of the processes that share a training, ``process`` 0 writes artefact and checkpoints.

        What the others write is thrown away.
        """
        self._partial, self._process = partial, process
        self.writes = process == 0
        """Whether this process writes the artefact."""
        self.checkpoints = CheckpointFolder(partial / "checkpoints", writes=self.writes)
        own = partial if self.writes else partial / f"process-{process}"
        self.folder = own / "out"
        """Where the artefact's files go."""
        self.scratch = own / "scratch"
        """For temporary files of libraries; deleted when the stage is done."""
        self.rows = partial / "scratch" / ROWS
        """For the rows of a training, which the first process writes and all read."""
        self.shards = own / "shards"
        """For finished parts of long work, kept when the stage is killed."""
        in_store = partial.parent.name == PARTIAL
        self.cache = (partial.parents[1] if in_store else partial.parent) / ".cache"
        """For what other stages may use again: by a digest of what it was computed from, so that
        it can be deleted at any time. In the store, beside what is being made."""
        self._reporter = reporter
        self._listeners: list[Listener] = []
        self._until_end = ExitStack()
        self.id = partial.name
        """The id of the artefact that is made."""
        place = read_json(partial / PLACE) if (partial / PLACE).exists() else {}
        self.title: str = place.get("title", self.id)
        """The stage's name for people: that of its run, and its own there."""
        self.tracker_folder = Path(place.get("trackers", self.scratch / "trackers"))
        """Where trackers of experiments write."""
        for folder in (self.folder, self.shards):
            folder.mkdir(parents=True, exist_ok=True)

    def until_end(self, context: AbstractContextManager[Any]) -> None:
        """Enter a context that is left when the stage ends, however it ends."""
        self._until_end.enter_context(context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._until_end.__exit__(kind, error, trace)

    @property
    def metrics(self) -> MetricsLog:
        """The stage's ``metrics.jsonl``."""
        return MetricsLog(self.folder / METRICS, tuple(self._listeners))

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Send every line of metrics to a listener, too, while the block runs."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def log_speed(self, step: int, values: Mapping[str, float]) -> None:
        """Write figures that depend on the clock beside the run, and send them to trackers.

        They are no part of the artefact, which is the same however fast it was made.
        """
        self.tracker_folder.mkdir(parents=True, exist_ok=True)
        with (self.tracker_folder / SPEED).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        for listener in self._listeners:
            listener(step, values)

    @property
    def done_file(self) -> Path:
        """The file, the same in all processes, by whose presence a part is done."""
        return self._partial / DONE

    def part(self, name: str) -> Stage:
        """Return a part of this stage: a subfolder of its artefact, with checkpoints of its own.

        Enter it while it is worked in (``with part:``): what is there until its end ends with that.
        """
        part = Stage(self._partial / PARTS / name, self._reporter, self._process)
        part.folder = self.folder / name
        part.folder.mkdir(exist_ok=True)
        part.cache, part.title = self.cache, f"{self.title}/{name}"
        part.id = f"{self.id}-{name}"  # trackers know a part by it
        part.tracker_folder = self.tracker_folder / name
        return part

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Show progress while the block runs."""
        with self._reporter.bar(description, total) as bar:
            yield bar

    def say(self, text: str) -> None:
        """Print one line under the stage's own."""
        self._reporter.say(f"    {text}")

    def say_plainly(self, text: str) -> None:
        """Print one line that holds words from data, which may look like rich's markup."""
        from rich.markup import escape

        self.say(escape(text))

    def report_dropped(self, dropped: LeftOut) -> None:
        """Write the rows that were left out beside the artefact, and print how many and why."""
        dropped.write(self.folder)
        for reason, count, numbers in dropped.by_reason():
            self.say_plainly(f"left out {count}: {reason} (rows {numbers})")
        for sentence in dropped.advice:
            self.say_plainly(sentence)
