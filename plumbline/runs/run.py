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
from threading import RLock
from typing import Any, TypeVar

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from plumbline.config import Config, to_yaml
from plumbline.errors import ArtifactError, brief
from plumbline.runs import launch
from plumbline.runs.artifacts import (
    Artifact,
    Store,
    read_json,
    write_json,
    write_whole,
)
from plumbline.runs.cluster import cluster_at
from plumbline.runs.make import artifact_id, make_in, whole_artifact
from plumbline.runs.metrics import METRICS
from plumbline.runs.names import check_run_name
from plumbline.runs.nodes import Nodes, refuse_side_by_side
from plumbline.runs.progress import Reporter, duration
from plumbline.runs.run_file import RUN_FILE, read_run_file
from plumbline.runs.side_by_side import SideBySide

F = TypeVar("F", bound=Callable[..., Mapping[str, float | None]])

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
        before_work: Callable[[], None] | None = None,
        processes: int = 1,
        sharding: str | None = None,
        parallel: int = 1,
        on: str | None = None,
        nodes: Nodes | None = None,
    ) -> None:
        """``before_work`` is called once, before the first stage that is not made yet.

        ``processes``: how many share each training that can be shared; needs ``isolate``.
        ``sharding``: how they share its weights, null where each has a whole copy.
        ``parallel``: how many stages whose inputs are made run side by side; needs it, too. ``on``:
        the Ray cluster that they run on, ``ray`` or ``ray://HOST:PORT``. ``nodes``: more machines.
        """
        launch.refuse_launcher()
        refuse_side_by_side(nodes, parallel, on)
        self._isolate, self._nodes, self._before_work = isolate, nodes, before_work
        self.processes, self.sharding, self._started = processes, sharding, time.monotonic()
        self._seconds_left: Callable[[Iterable[str]], float] | None = None
        self.home = home.resolve()
        if not (self.home / name / RUN_FILE).is_file():  # older runs keep their names
            check_run_name(name)
        self.folder = self.home / name
        self.store = Store(self.home / "store")
        self.reporter = reporter or Reporter(quiet=True)
        (self.folder / "stages").mkdir(parents=True, exist_ok=True)
        finished_before = _last_finished(self.folder)
        write_whole(self.folder / CONFIG_FILE, to_yaml(config))
        self._state: dict[str, Any] = {
            "recipe": recipe,
            "name": name,
            "status": "running",
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
            "started": _now(),
            "finished": None,
            "seconds": None,
            "stage": None,
            "making": None,
            "stages": {},
            "headline": {},
            "finished_before": finished_before,
        }
        self._made: dict[str, Artifact] = {}
        self._writing = RLock()
        self._others: SideBySide | None = None
        self._cluster = cluster_at(on, self.reporter.say) if on is not None else None
        if parallel > 1 or on is not None:
            gpus = launch.gpus() if on is None else 0  # those of a cluster are given out by it
            self._others = SideBySide(parallel, gpus, self.reporter, self._adopt_one)
        self._write()

    def make(
        self, name: str, function: Callable[..., Mapping[str, float | None]], /, **arguments: Any
    ) -> Artifact:
        """Return what a stage makes; it runs only if the store does not have it."""
        launch.refuse_untrainable([function], self.processes)
        launch.refuse_unshared_weights([function], self.sharding)
        processes = self.processes if launch.is_shared(function) else 1
        sharding = launch.sharding_of(function, self.sharding)
        made_id = artifact_id(function, arguments, processes, sharding)
        if self._others is not None:
            self._others.check()
        else:
            self._state |= {"stage": name, "making": made_id}
            self._write()
        artifact = whole_artifact(self.store, made_id)
        if artifact is not None:
            self.adopt(name, artifact, reused=True)
            return artifact
        if self._before_work is not None:
            self._before_work()
            self._before_work = None

        def make(
            reporter: Reporter, variables: Mapping[str, str], tick: Callable[[], None]
        ) -> tuple[Artifact, bool]:
            if self._others is not None:
                self._write()
            if self._cluster is not None:
                where: dict[str, Any] = {"processes": processes, "sharding": sharding}
                return self._cluster.make(
                    self.store, name, function, arguments, reporter, tick, run=self.folder, **where
                )
            return make_in(
                self.store,
                name,
                function,
                arguments,
                reporter,
                isolate=self._isolate,
                processes=processes,
                sharding=sharding,
                tick=tick,
                run=self.folder,
                variables=variables,
                nodes=self._nodes,
            )

        if self._others is not None:
            kind = function.artifact_kind  # type: ignore[attr-defined]
            place = (self.store.path(made_id), kind)
            self._made[name] = self._others.submit(name, place, make, arguments, processes)
            return self._made[name]
        artifact, reused = make(self.reporter, {}, lambda: None)
        self.adopt(name, artifact, reused=reused)
        return artifact

    def _adopt_one(self, name: str, artifact: Artifact, reused: bool) -> None:
        self.adopt(name, artifact, reused=reused)

    def adopt(self, name: str, artifact: Artifact, *, reused: bool) -> None:
        """Note which artefact of the store a stage of this run made."""
        shown = _shown(artifact.metrics)
        stages_made = [*self._state["stages"], name]
        forecast = self._seconds_left if self._others is None else None
        left = forecast(stages_made) if forecast is not None else 0.0
        if left >= _WORTH_SAYING and not reused:  # those that follow may be made, too
            shown += f"  · about {duration(left)} left"
        note = "[dim]made before[/dim]" if reused else duration(artifact.manifest.seconds)
        self.reporter.say(f"  [green]✓[/green] {name:<24} {note}  [dim]{shown}[/dim]")
        with self._writing:
            self._made.setdefault(name, artifact)
            self._state["stages"][name] = {"artifact": artifact.id, "reused": reused}
            self._link(name, artifact)
            self._write()

    def expect(self, seconds_left: Callable[[Iterable[str]], float]) -> None:
        """Show after each stage how long the others take, by the names of those that are made."""
        self._seconds_left = seconds_left

    def plan(self, names: Iterable[str]) -> None:
        """Note which stages the recipe is going to make, for readers of the run in progress."""
        with self._writing:  # stages side by side write, too
            self._state["planned"] = list(names)
            self._write()

    @property
    def stages(self) -> dict[str, Artifact]:
        """The artefacts made so far, by the stage's name in this run."""
        return dict(self._made)

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
        if self._others is not None:
            self._others.finish()
            order = {name: self._state["stages"][name] for name in self._made}
            self._state["stages"] = order  # that of the recipe, and not of the clock
        self._collect_metrics()
        self._state |= {
            "status": "finished",
            "stage": None,
            "making": None,
            "headline": dict(headline),
            "finished_before": None,
        }
        self._end()

    def fail(self, status: str, reason: str) -> None:
        """Note that the recipe ended early: ``failed`` or ``interrupted``."""
        if self._others is not None:
            self._others.stop()
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
        with self._writing:
            if self._others is not None:
                running = self._others.running()
                stage, making = next(iter(running.items()), (None, None))
                self._state |= {"stage": stage, "making": making, "running": running}
            write_json(self.folder / RUN_FILE, self._state)


class RunRecord:
    """A run on disk, to list or to show."""

    def __init__(self, folder: Path) -> None:
        """Read it; raise `ArtifactError` where it is damaged."""
        self.folder = folder
        self.state = read_run_file(folder / RUN_FILE)
        self.store = Store(folder.parent / "store")

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``failed`` or ``interrupted``; a killed run is interrupted."""
        status = str(self.state["status"])
        if status == "running" and not _is_alive(
            self.state.get("pid"), self.state.get("process_started")
        ):
            return "interrupted"
        return status

    @property
    def making(self) -> dict[str, str]:
        """The stages that are being made, or were at the end, with the ids of their artefacts."""
        state = self.state
        running = state.get("running")
        if not running:
            running = {state["stage"]: state.get("making")}
        return {name: key for name, key in running.items() if key and name not in state["stages"]}

    @property
    def settings(self) -> dict[str, str]:
        """The settings of the recipe by key, as JSON."""
        file = self.folder / CONFIG_FILE
        try:
            values = YAML(typ="safe").load(file) if file.exists() else None
            return flat_settings(values or {})
        except (YAMLError, UnicodeError, AttributeError, TypeError) as error:
            raise ArtifactError(f"{file} is damaged ({brief(error)}).") from None

    @property
    def last_finished(self) -> tuple[dict[str, Artifact], dict[str, str]] | None:
        """Artifacts and settings of this run's last attempt that came to its end, if any did.

        An attempt begins with no stage, so what the one before it made would be forgotten.
        """
        last = self.finished_attempt
        return (self._find(last["stages"]), last["settings"]) if last else None

    @property
    def finished_attempt(self) -> dict[str, Any] | None:
        """Stages and settings of that attempt, as ``run.json`` keeps them for the next one."""
        if self.status == "finished":
            return {"stages": self.state["stages"], "settings": self.settings}
        before: dict[str, Any] | None = self.state["finished_before"]
        return before

    @property
    def planned(self) -> list[str]:
        """The stages that the recipe said it is going to make; empty where it said nothing."""
        return list(self.state.get("planned") or ())

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The artefacts by the stage's name in this run."""
        return self._find(self.state["stages"])

    def _find(self, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Artifact]:
        artifacts = {}
        for name, entry in stages.items():
            artifact = self.store.find(entry["artifact"])
            if artifact is None:
                raise ArtifactError(
                    f"Run {self.folder.name}: {entry['artifact']} ({name}) is gone."
                )
            artifacts[name] = artifact
        return artifacts


def _last_finished(folder: Path) -> dict[str, Any] | None:
    """Return stages and settings of the last attempt at a run that came to its end, if any did."""
    if not (folder / RUN_FILE).is_file():
        return None
    try:
        return RunRecord(folder).finished_attempt
    except (ArtifactError, OSError):  # damaged: this attempt writes it again
        return None


def all_runs(home: Path) -> tuple[list[RunRecord], dict[str, str]]:
    """Return the runs under a home folder, the newest first, and what is wrong with others."""
    runs, damaged = [], {}
    for file in sorted(home.glob(f"*/{RUN_FILE}")):
        try:
            runs.append(RunRecord(file.parent))
        except (ArtifactError, OSError) as error:
            damaged[file.parent.name] = str(error)
    return sorted(runs, key=lambda run: str(run.state["started"]), reverse=True), damaged


def _is_alive(pid: Any, started: Any) -> bool:
    """Return whether a process runs, and is the one that started then: numbers are used again."""
    try:
        process = psutil.Process(pid)
        return started is None or abs(process.create_time() - started) < 1.0
    except (psutil.Error, TypeError, ValueError):
        return False


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
