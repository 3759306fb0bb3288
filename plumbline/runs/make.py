"""Making one artefact: reused where the store has it, and made by one process at a time.

A damaged one is set aside and made again, and one that another process makes is waited for.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.markup import escape

from plumbline.runs import calls
from plumbline.runs.artifacts import (
    Artifact,
    DamagedArtifactError,
    Manifest,
    Store,
    entries,
    read_json,
    write_json,
)
from plumbline.runs.isolation import Outcome, run_here, run_isolated
from plumbline.runs.machine import versions
from plumbline.runs.nodes import Nodes
from plumbline.runs.progress import Reporter
from plumbline.runs.shardings import SHARED
from plumbline.runs.stage import PLACE, forget_rows
from plumbline.runs.take_over import numbers_before, say_what_stays, take_over

_SECONDS_BETWEEN_LOOKS = 2.0


def artifact_id(
    function: Callable[..., Mapping[str, float | None]],
    arguments: Mapping[str, Any],
    processes: int = 1,
    sharding: str | None = None,
) -> str:
    """Return the id of what a stage makes, whether it is made already or not."""
    call = calls.describe_call(function, arguments)
    return _identify(function, _described(call, processes, sharding))


def _identify(
    function: Callable[..., Mapping[str, float | None]], description: dict[str, Any]
) -> str:
    return calls.identify(
        function.artifact_kind,  # type: ignore[attr-defined]
        function.schema_version,  # type: ignore[attr-defined]
        description,
    )


def _described(call: dict[str, Any], processes: int, sharding: str | None) -> dict[str, Any]:
    """Return the description of a stage's call, with the number of processes that share it.

    It counts, since several may read other rows in the last step of an epoch; and so does how they
    share the weights, since they may compute with those in another number format.
    """
    if processes == 1:
        return call
    shared = {} if sharding is None else {"sharding": sharding}
    return call | {"processes": processes} | shared


def make_in(
    store: Store,
    name: str,
    function: Callable[..., Mapping[str, float | None]],
    arguments: Mapping[str, Any],
    reporter: Reporter,
    *,
    isolate: bool = True,
    processes: int = 1,
    sharding: str | None = None,
    threads: int | None = None,
    tick: Callable[[], None] = lambda: None,
    run: Path | None = None,
    variables: Mapping[str, str] | None = None,
    nodes: Nodes | None = None,
) -> tuple[Artifact, bool]:
    """Return what a stage makes, and whether the store had it already.

    ``processes``: how many share an isolated stage; ``sharding``: how they share its weights.
    ``threads``: how many each computes with, null leaving it to the libraries. ``tick`` is called
    every two seconds while an isolated stage runs; where it raises, the stage is killed. ``run``:
    the folder of the run that makes it, for what trackers of experiments write. ``variables``: of
    an isolated stage's environment. ``nodes``: other machines that take part.
    """
    call = calls.describe_call(function, arguments)  # first, for files of code may change meanwhile
    description = _described(call, processes, sharding)
    made_id = _identify(function, description)
    artifact = whole_artifact(store, made_id)
    if artifact is not None:
        return artifact, True

    partial = store.partial(made_id)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with _alone(FileLock(f"{partial}.lock"), name, reporter, tick):
        artifact = _whole_or_aside(store, made_id, name, reporter)
        if artifact is not None:  # another process made it meanwhile
            return artifact, True
        partial.mkdir(exist_ok=True)
        _take_over(store, made_id, function, call, (processes, sharding), reporter)
        reporter.say(f"  [yellow]▸[/yellow] {name:<24} [dim]{_how_it_begins(partial)}[/dim]")
        if run is not None:
            _say_where(store, made_id, run, name, reporter)
        forget_rows(partial)
        clock = _Clock(partial / "clock.json", tick)
        what = (function, partial, arguments, reporter.within())
        if isolate:
            how = (threads, processes, sharding, variables)
            outcome = run_isolated(*what, clock.tick, *how, nodes)
        else:
            outcome = run_here(*what)
        clock.tick()
        manifest = _manifest(
            made_id, function, description, arguments, outcome, clock.seconds, partial / "out"
        )
        artifact = store.publish(partial / "out", manifest)
        shutil.rmtree(partial)
    return artifact, False


def _how_it_begins(partial: Path) -> str:
    """Return what to say where a stage was stopped before; nothing where it is new."""
    if not (partial / "clock.json").exists():
        return ""
    kinds = ("checkpoints/step-*", "shards/*")
    if any(path for kind in kinds for path in partial.rglob(kind)):
        return "resumes where it was stopped"
    return "begins again: it had kept nothing yet"


def _take_over(
    store: Store,
    made_id: str,
    function: Callable[..., Mapping[str, float | None]],
    call: dict[str, Any],
    now: tuple[int, str | None],
    reporter: Reporter,
) -> None:
    """Let a training resume what another number of processes than ``now`` began."""
    if getattr(function, "trains_in", None) != "several processes":
        return
    processes, sharding = now
    others = (None, *SHARED) if getattr(function, "shares_weights", False) else (None,)
    ways = [sharding, *(way for way in others if way != sharding)]

    def id_with(number: int, way: str | None) -> str:
        return _identify(function, _described(call, number, way))

    take_over(store, made_id, id_with, processes, ways, reporter)


def _say_where(store: Store, made_id: str, run: Path, name: str, reporter: Reporter) -> None:
    """Let the stage know which run makes it, and where trackers of experiments write.

    Say what an earlier attempt of that run left, where this one does not resume.
    """
    title = f"{run.name}/{name}"
    say_what_stays(store, made_id, title, reporter)
    trackers = run / "trackers" / name.replace("/", "-")
    write_json(store.partial(made_id) / PLACE, {"title": title, "trackers": str(trackers)})


def _manifest(
    artifact_id: str,
    function: Callable[..., Mapping[str, float | None]],
    description: dict[str, Any],
    arguments: Mapping[str, Any],
    outcome: Outcome,
    seconds: float,
    folder: Path,
) -> Manifest:
    """Return what is kept beside an artefact: how it was made, on what, and what it holds."""
    before = numbers_before(folder.parent)
    return Manifest(
        kind=function.artifact_kind,  # type: ignore[attr-defined]
        id=artifact_id,
        schema_version=function.schema_version,  # type: ignore[attr-defined]
        stage=description["function"],
        arguments=description,
        inputs={
            place: artifact.id
            for key, value in arguments.items()
            for place, artifact in calls.artifacts_in(value, key)
        },
        seed=arguments.get("seed"),
        data_seed=arguments.get("data_seed"),
        metrics=dict(outcome.metrics),
        versions=versions(),
        machine=outcome.machine | ({"processes_before": before} if before else {}),
        seconds=round(seconds, 3),
        peak_memory_bytes=outcome.peak_memory_bytes,
        files=entries(folder),
    )


def whole_artifact(store: Store, made_id: str) -> Artifact | None:
    """Return an artefact of the store; None where there is none, or a damaged one."""
    with suppress(DamagedArtifactError):
        return store.find(made_id)
    return None


def _whole_or_aside(store: Store, made_id: str, name: str, reporter: Reporter) -> Artifact | None:
    """Return an artefact of the store; a damaged one is set aside, and this is said.

    Under the artefact's lock, or what another process has just made again would be set aside.
    """
    try:
        return store.find(made_id)
    except DamagedArtifactError as error:
        aside = store.set_aside(made_id)
        reporter.say(f"  [red]![/red] {name:<24} {escape(str(error))} It is kept as {aside.name}.")
        return None


@contextmanager
def _alone(
    lock: FileLock, name: str, reporter: Reporter, tick: Callable[[], None]
) -> Iterator[None]:
    """Hold a lock, once no other process makes the same artefact; ``tick`` may raise meanwhile.

    Its file goes before it is released: who waited for that file looks for another one.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reporter.say(
            f"  [yellow]…[/yellow] {name:<24} another process is making it; waiting for it "
            "(ctrl-C ends the waiting)"
        )
    while not lock.is_locked:
        tick()
        with suppress(Timeout):
            lock.acquire(timeout=_SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


class _Clock:
    """Measures a stage over all its attempts: a killed attempt counts up to its last tick."""

    def __init__(self, path: Path, also: Callable[[], None]) -> None:
        self._path, self._also = path, also
        self._before: float = read_json(path)["seconds"] if path.exists() else 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        """Note the time so far, and do what else is due."""
        write_json(self._path, {"seconds": self.seconds})
        self._also()
