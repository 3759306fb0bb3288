"""Stages of one run side by side: each begins as soon as what it needs is made.

A recipe stays as it is. Where it makes a stage it gets a `Promised` artefact at once, which has its
id already, since the id follows from the call. So the recipe runs to the next stage. Code that
reads more of it than that waits until it is made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbline.errors import ConfigError, PlumblineError
from plumbline.runs import calls, spinning
from plumbline.runs.artifacts import Artifact, Manifest
from plumbline.runs.progress import Bar, LiveShow, Reporter, live_bars

_SECONDS_BETWEEN_LOOKS = 0.5
Make = Callable[[Reporter, Mapping[str, str], Callable[[], None]], tuple[Artifact, bool]]
"""Makes a stage. It is told where to report to, the variables of the stage's processes, and what to
call while it waits."""


class StoppedError(PlumblineError):
    """A stage was stopped because another one failed, or the run was interrupted."""


class Promised(Artifact):
    """An artefact that is being made. Code that reads more than its id and kind waits for it."""

    def __init__(self, path: Path, kind: str, wait: Callable[[], None]) -> None:
        self._path, self._kind, self._wait = path, kind, wait

    @property
    def path(self) -> Path:  # type: ignore[override]
        """The artefact's folder, once it is there."""
        self._wait()
        return self._path

    @property
    def id(self) -> str:
        """The id, known before the artefact is."""
        return self._path.name

    @property
    def kind(self) -> str:
        """The kind."""
        return self._kind

    @property
    def manifest(self) -> Manifest:
        """The manifest, once it is there."""
        return Artifact(self.path).manifest

    def __repr__(self) -> str:
        return f"Artefact({self.id})"

    def __reduce__(self) -> tuple[type[Artifact], tuple[Path]]:
        """Go to another process as a plain artefact: a stage begins when its inputs are made."""
        return Artifact, (self._path,)


@dataclass(eq=False)
class _Job:
    name: str
    artifact_id: str
    make: Make
    needs: list[_Job]
    gpus: int
    done: bool = False
    error: BaseException | None = None
    taken: list[str] = field(default_factory=list)
    """The GPUs that it was given."""


class SideBySide:
    """Makes stages, ``most`` at once, each as soon as its inputs are made.

    With GPUs a stage has one to itself, or one for each of its processes. Where a stage fails, none
    begins any more, and those that run are finished. ``adopt`` is called with each artefact.
    """

    def __init__(
        self, most: int, gpus: int, reporter: Reporter, adopt: Callable[[str, Artifact, bool], None]
    ) -> None:
        if 0 < gpus < most:
            raise ConfigError(
                f"--parallel {most} is set, and there are {gpus} GPUs; each stage needs one. Set "
                f"--parallel {gpus}."
            )
        # A thread that spins would keep a core from another stage.
        spinning.choose_busy()
        self._adopt = adopt
        self._reporter = _Shared(reporter)
        self._has_gpus = gpus > 0
        self._free = [str(number) for number in range(gpus)]
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(most)]
        for thread in self._threads:
            thread.start()

    def submit(
        self, name: str, artifact: tuple[Path, str], make: Make, arguments: Any, processes: int = 1
    ) -> Promised:
        """Let a stage be made as soon as its inputs are; return what it makes.

        ``artifact``: the folder that it will have, and its kind.
        """
        path, kind = artifact
        needed = {entry.id for _, entry in calls.artifacts_in(arguments, "")} | {path.name}
        with self._changed:
            # Two names for one call: the second one finds it made.
            needs = [job for job in self._jobs.values() if job.artifact_id in needed]
            job = _Job(name, path.name, make, needs, processes if self._has_gpus else 0)
            self._jobs[name] = job
            self._waiting.append(job)
            self._changed.notify_all()
        return Promised(path, kind, lambda: self._wait(job))

    @property
    def names(self) -> list[str]:
        """The stages in the order in which the recipe made them."""
        return list(self._jobs)

    def running(self) -> dict[str, str]:
        """Return the stages that are being made, each with the id of its artefact."""
        with self._changed:
            return {job.name: job.artifact_id for job in self._running}

    def finish(self) -> None:
        """Wait for all stages; raise what the first that failed raised, with its name."""
        for job in list(self._jobs.values()):
            self._wait(job)

    def stop(self) -> None:
        """Stop the stages that run; their checkpoints stay."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise where a stage failed, once those that run have come to their end."""
        with self._changed:
            if self._failed():
                self._let_others_finish()

    def _wait(self, job: _Job) -> None:
        with self._changed:
            while not job.done:
                if self._failed():
                    self._let_others_finish()
                # With a limit, so that ctrl-C works meanwhile.
                self._changed.wait(_SECONDS_BETWEEN_LOOKS)

    def _failed(self) -> list[_Job]:
        return [job for job in self._jobs.values() if job.error is not None]

    def _let_others_finish(self) -> None:
        """Wait for the stages that run, then raise the error of those that failed."""
        while self._running:
            self._changed.wait(_SECONDS_BETWEEN_LOOKS)
        first, *others = self._failed()
        error = first.error
        assert error is not None
        sentences = [f"{job.name}: {job.error}" for job in (first, *others)]
        if isinstance(error, PlumblineError):
            error.args = ("\n".join(sentences),)
        raise error

    def _next(self) -> _Job | None:
        """Return the first stage that can begin, with its GPUs taken."""
        for job in self._waiting:
            if all(needed.done for needed in job.needs) and job.gpus <= len(self._free):
                self._waiting.remove(job)
                job.taken, self._free = self._free[: job.gpus], self._free[job.gpus :]
                return job
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                job = None
                while job is None:
                    if self._stop.is_set() or self._failed():
                        return
                    job = self._next()
                    if job is None:
                        self._changed.wait()
                self._running.append(job)
            try:
                self._make(job)
            except BaseException as error:
                job.error = error
                # Who waits for the stage is to know also where nobody reads more (`| head`).
                with suppress(Exception, SystemExit):
                    self._say_failure(job)
            with self._changed:
                job.done = job.error is None
                self._running.remove(job)
                self._free = sorted([*self._free, *job.taken], key=int)
                self._changed.notify_all()

    def _make(self, job: _Job) -> None:
        variables = {"CUDA_VISIBLE_DEVICES": _visible(job.taken)} if job.taken else {}

        def tick() -> None:
            if self._stop.is_set():
                raise StoppedError(f"{job.name} was stopped.")

        artifact, reused = job.make(self._reporter.of(job.name), variables, tick)
        self._adopt(job.name, artifact, reused)

    def _say_failure(self, job: _Job) -> None:
        if isinstance(job.error, StoppedError):
            return
        with self._changed:
            others = ", ".join(other.name for other in self._running if other is not job)
        text = str(job.error).partition("\n")[0]
        more = f" No stage begins any more; {others} will be finished." if others else ""
        self._reporter.say_plainly(f"  ✗ {job.name:<24} {text}{more}")


def _visible(numbers: list[str]) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES for some of the GPUs that this process sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen else None
    return ",".join(names[int(number)] if names else number for number in numbers)


class _Shared(Reporter):
    """One terminal for several stages: all bars stand below each other."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__(reporter.console)
        self._lock = threading.Lock()
        self._bars = 0
        self._progress: Any = None

    def of(self, stage: str) -> Reporter:
        """Return the reporter of one stage, whose lines have its name."""
        return _OfStage(self, stage)

    def say_plainly(self, text: str) -> None:
        """Print a line that may look like markup."""
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs, below those of other stages."""
        if not self.console.is_terminal or self.console.is_jupyter:
            with super().bar(description, total) as bar:
                yield bar
            return
        with self._lock:
            if self._progress is None:
                self._progress = live_bars(self.console)
                self._progress.start()
            self._bars += 1
            task = self._progress.add_task(description, total=total, metrics="")
        try:
            yield Bar(LiveShow(self._progress, task))
        finally:
            with self._lock:
                self._progress.remove_task(task)
                self._bars -= 1
                if not self._bars:
                    self._progress.stop()
                    self._progress = None


class _OfStage(Reporter):
    """What one of several stages reports."""

    def __init__(self, shared: _Shared, stage: str) -> None:
        super().__init__(shared.console)
        self._shared, self._stage = shared, stage

    def within(self) -> Reporter:
        """Return what shows the lines of the stage itself, each with the stage's name."""
        return _WithName(self._shared, self._stage)


class _WithName(_OfStage):
    def say(self, text: str) -> None:
        """Print one line, with the name of the stage."""
        self._shared.say(f"    {self._stage}: {text.strip()}")

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Bar]:
        """Show a bar while the block runs, with the name of the stage."""
        with self._shared.bar(f"{self._stage}: {description}", total) as bar:
            yield bar
