"""Many stages at once: in processes on this machine, or on many machines by Ray.

The stages of one call do not depend on each other, so they may be made in any order and at once.
Each is an artefact of the run's store, so a call that was killed makes only what is missing.

With Ray, every machine must have Plumbline installed in the same version and reach the run's home
folder at the same path (a shared file system): stages read and write their artefacts there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from plumbline.config import Config, not_in_identity
from plumbline.errors import BusyError, ConfigError, PlumblineError
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.cluster import RayCluster
from plumbline.runs.isolation import StageDiedError
from plumbline.runs.make import make_in
from plumbline.runs.progress import Bar, Reporter
from plumbline.runs.run import Run
from plumbline.runs.side_by_side import StoppedError

Made = tuple[str, bool]  # an artefact's id, and whether it was there already


class PoolConfig(Config):
    """Where stages that do not need each other are made, and how many at once.

    None of this changes what they make: a stage has the same number of threads for any number of
    stages that run at the same time.
    """

    kind: Literal["processes", "ray"] = not_in_identity("processes")
    """processes: on this machine. ray: on a Ray cluster, whose machines share the home folder."""
    workers: int = not_in_identity(1, ge=1)
    """Stages at once."""
    threads: int = Field(1, ge=1)
    """Threads of each stage. The last bits of sums depend on it, so it is a setting, not a share
    of the cores."""
    address: str | None = not_in_identity(None)
    """The Ray cluster's address, such as ray://head:10001. Null: one that is started here."""


@dataclass(frozen=True)
class Job:
    """A stage to make: its function and the arguments of the call."""

    function: Callable[..., Mapping[str, float | None]]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def make_all(
    run: Run,
    jobs: Mapping[str, Job],
    pool: PoolConfig,
    failures: dict[str, PlumblineError] | None = None,
) -> dict[str, Artifact]:
    """Return what stages make, by name; missing ones are made at the same time.

    The run lists them in the order of ``jobs``, in which order they may not finish. If one fails,
    the others are stopped, and resume from their checkpoints the next time. With ``failures``, the
    others continue, and the error is noted there under the stage's name. A stage whose process was
    killed always ends the call.
    """
    if run.processes > 1:
        raise ConfigError(
            "Stages that run side by side have one process each, so --launch and --processes would "
            "have no effect. Leave them out."
        )
    bears = failures is not None
    with (
        _workers(run.store, pool, run.reporter.say) as submit,
        run.reporter.bar("stages", len(jobs)) as bar,
    ):
        futures = {name: submit(name, job, bears) for name, job in jobs.items()}
        for future in futures.values():
            future.add_done_callback(_advancing(bar))
        wait(futures.values(), return_when=FIRST_EXCEPTION)
        for future in futures.values():
            if future.done() and (error := future.exception()) is not None:
                raise error
    artifacts = {}
    for name, future in futures.items():
        result = future.result()
        if isinstance(result, PlumblineError):
            assert failures is not None
            run.reporter.say(f"  [red]✗[/red] {name:<24} {str(result).partition(chr(10))[0]}")
            failures[name] = result
            continue
        artifact_id, reused = result
        artifact = run.store.find(artifact_id)
        assert artifact is not None
        run.adopt(name, artifact, reused=reused)
        artifacts[name] = artifact
    return artifacts


Submit = Callable[[str, Job, bool], "Future[Made | PlumblineError]"]


@contextmanager
def _workers(store: Store, pool: PoolConfig, say: Callable[[str], None]) -> Iterator[Submit]:
    """Start workers; stop them if the block ends early."""
    stop = threading.Event()
    make = _make_here if pool.kind == "processes" else _ray_maker(pool, say)

    def attempt(name: str, job: Job, bears_failure: bool) -> Made | PlumblineError:
        try:
            return make(store, name, job, pool.threads, stop)
        except (StageDiedError, BusyError, StoppedError):
            raise
        except PlumblineError as error:
            if bears_failure:
                return error
            raise

    with ThreadPoolExecutor(pool.workers) as threads:
        try:
            yield lambda name, job, bears: threads.submit(attempt, name, job, bears)
        except BaseException:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _make_here(store: Store, name: str, job: Job, threads: int, stop: threading.Event) -> Made:
    """Make a stage in a process of its own, which this thread watches."""
    artifact, reused = make_in(
        store,
        name,
        job.function,
        job.arguments,
        Reporter(quiet=True),
        threads=threads,
        tick=_raising(name, stop),
    )
    return artifact.id, reused


def _raising(name: str, stop: threading.Event) -> Callable[[], None]:
    def tick() -> None:
        if stop.is_set():
            raise StoppedError(f"{name} was stopped, since another stage failed.")

    return tick


def _ray_maker(pool: PoolConfig, say: Callable[[str], None]) -> Callable[..., Made]:
    """Return a function that makes a stage on some machine of a Ray cluster."""
    cluster = RayCluster(pool.address, pool.threads, pool.workers * pool.threads, say)

    def make(store: Store, name: str, job: Job, threads: int, stop: threading.Event) -> Made:
        artifact, reused = cluster.make(
            store, name, job.function, job.arguments, Reporter(quiet=True), _raising(name, stop)
        )
        return artifact.id, reused

    return make


def _advancing(bar: Bar) -> Callable[[Future[Made | PlumblineError]], None]:
    return lambda future: bar.advance()
