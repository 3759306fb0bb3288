"""Runs of stages: a finished stage is reused, and a killed one resumes.

A recipe opens a `Run` and makes artefacts with it:

    base = run.make("base", build_base, config=config.base, data_seed=config.data_seed)
    sft = run.make("sft", train_sft, config=config.sft, base=base, seed=config.seed)

Each name is the stage's name in this run. The artefact itself is identified by what determines it,
and all runs under the same home folder share it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from plumbline.config import Config, to_yaml
from plumbline.errors import ArtifactError, BusyError
from plumbline.runs import calls, old_runs
from plumbline.runs.artifacts import Artifact, Manifest, Store, entries, read_json, write_json
from plumbline.runs.isolation import Outcome, run_here, run_isolated
from plumbline.runs.machine import versions
from plumbline.runs.metrics import METRICS
from plumbline.runs.names import check_run_name
from plumbline.runs.progress import Reporter, duration
from plumbline.runs.stage import PLACE

F = TypeVar("F", bound=Callable[..., Mapping[str, float | None]])

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
#: Seconds that are worth saying how many are left.
_WORTH_SAYING = 5.0


class Run:
    """One execution of a recipe with one config: the stages it made, and their artefacts."""

    def __init__(
        self,
        home: Path,
        name: str,
        recipe: str,
        config: Config,
        reporter: Reporter | None = None,
        *,
        isolate: bool = True,
    ) -> None:
        self._isolate = isolate
        self._seconds_left: Callable[[Iterable[str]], float] | None = None
        self.home = home.resolve()
        if not (self.home / name / RUN_FILE).is_file():  # older runs keep their names
            check_run_name(name)
        self.folder = self.home / name
        self.store = Store(self.home / "store")
        self.reporter = reporter or Reporter(quiet=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stages").mkdir(exist_ok=True)
        (self.folder / CONFIG_FILE).write_text(to_yaml(config), encoding="utf-8")
        self._state: dict[str, Any] = {
            "recipe": recipe,
            "name": name,
            "status": "running",
            "pid": os.getpid(),
            "started": _now(),
            "finished": None,
            "seconds": None,
            "stage": None,
            "making": None,
            "stages": {},
            "headline": {},
        }
        self._started = time.monotonic()
        self._write()

    def make(
        self, name: str, function: Callable[..., Mapping[str, float | None]], /, **arguments: Any
    ) -> Artifact:
        """Return what a stage makes; it runs only if the store does not have it."""
        self._state |= {"stage": name, "making": artifact_id(function, arguments)}
        self._write()
        artifact, reused = make_in(
            self.store,
            name,
            function,
            arguments,
            self.reporter,
            isolate=self._isolate,
            run=self.folder,
        )
        self.adopt(name, artifact, reused=reused)
        return artifact

    def adopt(self, name: str, artifact: Artifact, *, reused: bool) -> None:
        """Note which artefact of the store a stage of this run made."""
        shown = _shown(artifact.metrics)
        made = [*self._state["stages"], name]
        left = self._seconds_left(made) if self._seconds_left is not None else 0.0
        if left >= _WORTH_SAYING:
            shown += f"  · about {duration(left)} left"
        note = "[dim]made before[/dim]" if reused else duration(artifact.manifest.seconds)
        self.reporter.say(f"  [green]✓[/green] {name:<24} {note}  [dim]{shown}[/dim]")
        self._state["stages"][name] = {"artifact": artifact.id, "reused": reused}
        self._link(name, artifact)
        self._write()

    def expect(self, seconds_left: Callable[[Iterable[str]], float]) -> None:
        """Show after each stage how long the others take, by the names of those that are made."""
        self._seconds_left = seconds_left

    def plan(self, names: Iterable[str]) -> None:
        """Note which stages the recipe is going to make, for readers of the run in progress."""
        self._state["planned"] = list(names)
        self._write()

    @property
    def stages(self) -> dict[str, Artifact]:
        """The artefacts made so far, by the stage's name in this run."""
        return {
            name: Artifact(self.store.path(entry["artifact"]))
            for name, entry in self._state["stages"].items()
        }

    def publish(self, report: Artifact) -> dict[str, Any]:
        """Copy a report's files into the run's folder; return its ``summary.json``."""
        for name in report.manifest.files:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(report.path / name, target)
        summary: dict[str, Any] = read_json(self.folder / "summary.json")
        return summary

    def finish(self, headline: Mapping[str, Any]) -> None:
        """Note that the recipe is done."""
        self._collect_metrics()
        self._state |= {
            "status": "finished",
            "stage": None,
            "making": None,
            "headline": dict(headline),
        }
        self._end()

    def fail(self, status: str, reason: str) -> None:
        """Note that the recipe ended early: ``failed`` or ``interrupted``."""
        self._state |= {"status": status, "reason": reason}
        self._end()

    def _link(self, name: str, artifact: Artifact) -> None:
        link = self.folder / "stages" / name.replace("/", "-")
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(artifact.path, link.parent), target_is_directory=True)

    def _collect_metrics(self) -> None:
        """Write the run's own ``metrics.jsonl``: every stage's lines, each with its stage."""
        lines = []
        for name, entry in self._state["stages"].items():
            path = self.store.path(entry["artifact"]) / METRICS
            if path.exists():
                head = f'{{"stage": "{name}", '
                lines += [head + line[1:] for line in path.read_text("utf-8").splitlines()]
        (self.folder / METRICS).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def _end(self) -> None:
        self._state["finished"] = _now()
        self._state["seconds"] = round(time.monotonic() - self._started, 1)
        self._write()

    def _write(self) -> None:
        write_json(self.folder / RUN_FILE, self._state)


def artifact_id(
    function: Callable[..., Mapping[str, float | None]], arguments: Mapping[str, Any]
) -> str:
    """Return the id of what a stage makes, whether it is made already or not."""
    return calls.identify(
        function.artifact_kind,  # type: ignore[attr-defined]
        function.schema_version,  # type: ignore[attr-defined]
        calls.describe_call(function, arguments),
    )


def make_in(
    store: Store,
    name: str,
    function: Callable[..., Mapping[str, float | None]],
    arguments: Mapping[str, Any],
    reporter: Reporter,
    *,
    isolate: bool = True,
    threads: int | None = None,
    tick: Callable[[], None] = lambda: None,
    run: Path | None = None,
) -> tuple[Artifact, bool]:
    """Return what a stage makes, and whether the store had it already.

    ``threads``: how many the stage computes with, null leaving it to the libraries. ``tick`` is
    called every two seconds while an isolated stage runs; where it raises, the stage is killed.
    ``run``: the folder of the run that makes it, for what trackers of experiments write.
    """
    made_id = artifact_id(function, arguments)
    artifact = store.find(made_id)
    if artifact is not None:
        return artifact, True

    # Before the stage runs, for files of code may change meanwhile.
    description = calls.describe_call(function, arguments)
    partial = store.partial(made_id)
    partial.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{partial}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"Another process is making {made_id} (stage {name!r}) in {store.root.parent}. "
            "Wait for it and give the same command again: its result will be used."
        ) from None
    with lock:
        resumes = (partial / "clock.json").exists()
        reporter.say(
            f"  [yellow]▸[/yellow] {name:<24} "
            + ("[dim]resumes where it was stopped[/dim]" if resumes else "")
        )
        if run is not None:
            trackers = run / "trackers" / name.replace("/", "-")
            place = {"title": f"{run.name}/{name}", "trackers": str(trackers)}
            write_json(partial / PLACE, place)
        clock = _Clock(partial / "clock.json")

        def both() -> None:
            clock.tick()
            tick()

        if isolate:
            outcome = run_isolated(function, partial, arguments, reporter, both, threads)
        else:
            outcome = run_here(function, partial, arguments, reporter)
        clock.tick()
        manifest = _manifest(
            made_id, function, description, arguments, outcome, clock.seconds, partial / "out"
        )
        artifact = store.publish(partial / "out", manifest)
        shutil.rmtree(partial)
    Path(lock.lock_file).unlink(missing_ok=True)
    return artifact, False


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
        machine=outcome.machine,
        seconds=round(seconds, 3),
        peak_memory_bytes=outcome.peak_memory_bytes,
        files=entries(folder),
    )


class RunRecord:
    """A run on disk, to list or to show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = old_runs.current_state(read_json(folder / RUN_FILE))
        self.store = Store(folder.parent / "store")

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``failed`` or ``interrupted``; a killed run is interrupted."""
        status = str(self.state["status"])
        if status == "running" and not psutil.pid_exists(self.state["pid"]):
            return "interrupted"
        return status

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the recipe by key, as JSON."""
        file = self.folder / CONFIG_FILE
        values = YAML(typ="safe").load(file) if file.exists() else None
        return flat_settings(values or {})

    @property
    def planned(self) -> list[str]:
        """The stages that the recipe said it is going to make; empty where it said nothing."""
        return list(self.state.get("planned") or ())

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The artefacts by the stage's name in this run."""
        artifacts = {}
        for name, entry in self.state["stages"].items():
            artifact = self.store.find(entry["artifact"])
            if artifact is None:
                raise ArtifactError(
                    f"Run {self.folder.name}: {entry['artifact']} ({name}) is gone."
                )
            artifacts[name] = artifact
        return artifacts


def all_runs(home: Path) -> list[RunRecord]:
    """Return the runs under a home folder, the newest first."""
    runs = [RunRecord(file.parent) for file in home.glob(f"*/{RUN_FILE}")]
    return sorted(runs, key=lambda run: str(run.state["started"]), reverse=True)


class _Clock:
    """Measures a stage over all its attempts: a killed attempt counts up to its last tick."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before: float = read_json(path)["seconds"] if path.exists() else 0.0
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def tick(self) -> None:
        write_json(self._path, {"seconds": self.seconds})


def _shown(metrics: Mapping[str, float | None]) -> str:
    first_three = list(metrics.items())[:3]
    return "  ".join(f"{name} {value:.4g}" for name, value in first_three if value is not None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level, ``ppo.kl.target`` to its value as JSON."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, default=str)
    return flat
