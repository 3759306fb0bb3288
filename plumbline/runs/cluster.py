"""Stages on the machines of a Ray cluster.

Every machine has Plumbline in the same version, and the run's home folder at the same path (a
shared file system): stages read and write their artefacts there. What a stage says goes there, too,
and is shown on the terminal of the command. Where a machine is lost, its stage begins again on
another one and resumes from its checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from plumbline.errors import ConfigError, PlumblineError
from plumbline.runs import code_version
from plumbline.runs.artifacts import Artifact, Store
from plumbline.runs.isolation import StageDiedError
from plumbline.runs.make import artifact_id, make_in
from plumbline.runs.progress import EventPlayer, RemoteReporter, Reporter

_SECONDS_BETWEEN_LOOKS = 1.0
#: Seconds in which a cluster must answer.
_ANSWERS = 10.0
#: Seconds after which it is said once more what is waited for.
_SAY_SECONDS = 10.0
#: How often a stage begins again after its machine was lost.
_MOST_LOSSES = 5
Function = Callable[..., Mapping[str, float | None]]


def cluster_at(on: str, say: Callable[[str], None] = lambda text: None) -> RayCluster:
    """Return the Ray cluster that ``--on`` names: ``ray`` or ``ray://HOST:PORT``.

    ``say`` is told what is waited for.
    """
    if on != "ray" and not on.startswith("ray://"):
        raise ConfigError(
            f"--on {on} is not possible. Give ray://HOST:PORT, the address of a Ray cluster, or "
            "ray, for the one at RAY_ADDRESS or one that is started here."
        )
    import torch

    address = os.environ.get("RAY_ADDRESS") if on == "ray" else on
    return RayCluster(address, torch.get_num_threads(), say=say)


def _start(
    ray: Any, address: str | None, cores_here: int | None, say: Callable[[str], None]
) -> None:
    """Reach the cluster at an address, or start one here; raise `ConfigError` where none is."""
    try:
        if address is not None and address.startswith("ray://"):
            place = urlsplit(address)
            if not place.hostname or not place.port:
                raise ConfigError(f"--on {address} names no host and port: ray://HOST:10001.")
            # Ray itself would wait for half a minute, and not say why.
            socket.create_connection((place.hostname, place.port), timeout=_ANSWERS).close()
        what = f"Ray to answer at {address}" if address else "a Ray cluster to start here"
        with _waited_for(what, say):
            ray.init(
                address=address or "local",
                num_cpus=cores_here if address is None else None,
                include_dashboard=False if address is None else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (OSError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"No Ray cluster answers at {address} ({reason}). Start it (ray start --head, with "
            "port 6379 for RAY_ADDRESS and 10001 for ray://), or correct the address."
        ) from None


@contextmanager
def _waited_for(what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is waited for while the block runs, and for how long so far."""
    started, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(_SAY_SECONDS):
            say(f"  {time.monotonic() - started:.0f} s: still waiting for {what}")

    say(f"  waiting for {what}; this may take a minute")
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
    say(f"  Ray answers, after {time.monotonic() - started:.0f} s")


class RayCluster:
    """A Ray cluster that makes stages."""

    def __init__(
        self,
        address: str | None,
        threads: int,
        cores_here: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Reach the cluster at an address; None: one that is started here, with ``cores_here``.

        ``threads``: with how many each stage computes, so that results do not depend on where.
        ``say`` is told what is waited for.
        """
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "Stages are to run on Ray, but Ray is not installed: pip install "
                "'plumbline-rlhf[ray]', here and on every machine of the cluster. Or run them on "
                "this machine."
            ) from None
        self._ray, self._threads = ray, threads
        if not ray.is_initialized():
            _start(ray, address, cores_here, say)
        machines = [node["Resources"] for node in _nodes(ray) if node["Alive"]]
        most = max((machine.get("CPU", 0) for machine in machines), default=0)
        if threads > most:
            raise ConfigError(
                f"Each stage computes with {threads} threads, as on this machine, and no machine "
                f"of the Ray cluster has more than {most:g} cores. Set OMP_NUM_THREADS to that or "
                "less."
            )
        self._has_gpus = any(machine.get("GPU", 0) for machine in machines)

    def make(
        self,
        store: Store,
        name: str,
        function: Function,
        arguments: Mapping[str, Any],
        reporter: Reporter,
        tick: Callable[[], None],
        *,
        processes: int = 1,
        sharding: str | None = None,
        run: Path | None = None,
    ) -> tuple[Artifact, bool]:
        """Return what a stage makes on some machine, and whether the store had it already.

        ``tick`` is called every second; where it raises, the stage is stopped.
        """
        ray = self._ray
        task = ray.remote(make_there).options(
            num_cpus=self._threads,
            num_gpus=processes if self._has_gpus else 0,
            max_retries=_MOST_LOSSES,  # of machines; an error of the stage is not tried again
        )
        version = code_version.digest(function.__module__)
        events = _events_of(store, artifact_id(function, arguments, processes, sharding))
        events.parent.mkdir(parents=True, exist_ok=True)
        events.unlink(missing_ok=True)
        call = (name, function, arguments, self._threads, version, processes, sharding, run)
        future = task.remote(store.root, *call)
        with _Followed(events, reporter) as follow:
            while not ray.wait([future], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
                follow.play()
                try:
                    tick()
                except BaseException:
                    ray.cancel(future, force=True)
                    raise
            follow.play()
        events.unlink(missing_ok=True)
        result_id, reused = self._result_of(future, name)
        artifact = store.find(result_id)
        if artifact is None:
            raise ConfigError(
                f"A worker made {result_id} (stage {name!r}), but it is not in {store.root} here. "
                "With Ray all machines must share the home folder, at the same path: set --home to "
                "one on a shared file system."
            )
        return artifact, reused

    def _result_of(self, future: Any, name: str) -> tuple[str, bool]:
        exceptions = self._ray.exceptions
        try:
            result: tuple[str, bool] = self._ray.get(future)
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, PlumblineError) else error from None
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError) as error:
            raise StageDiedError(
                f"{name} lost its machine {_MOST_LOSSES + 1} times ({error}). The same command "
                "resumes from its last checkpoint."
            ) from None
        return result


def make_there(
    root: Path,
    name: str,
    function: Function,
    arguments: Mapping[str, Any],
    threads: int,
    version: str,
    processes: int = 1,
    sharding: str | None = None,
    run: Path | None = None,
) -> tuple[str, bool]:
    """Make a stage on the machine of a Ray worker; return the id of its artefact."""
    if code_version.digest(function.__module__) != version:
        raise ConfigError(
            f"Stage {name!r}: a Ray worker has other code for {function.__module__} than this "
            "machine. Install the same version of Plumbline on every machine."
        )
    store = Store(root)
    events = _events_of(store, artifact_id(function, arguments, processes, sharding))
    events.parent.mkdir(parents=True, exist_ok=True)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")
    with events.open("a", encoding="utf-8") as stream:
        lock = threading.Lock()

        def send(*event: Any) -> None:
            with lock:
                stream.write(json.dumps(event) + "\n")
                stream.flush()

        stream.write("\n")  # what a lost machine said last may have no end
        send("begin", socket.gethostname())
        artifact, reused = make_in(
            store,
            name,
            function,
            arguments,
            _Sending(send),
            threads=threads if processes == 1 else None,
            processes=processes,
            sharding=sharding,
            run=run,
            variables={} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus},
        )
    return artifact.id, reused


class _Sending(RemoteReporter):
    """Sends what is said of a stage, and, marked, what the stage itself says."""

    def within(self) -> Reporter:
        """Return what sends the lines of the stage itself."""
        return RemoteReporter(lambda *event: self._send("stage", *event))


def _nodes(ray: Any) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()
    return nodes


def _events_of(store: Store, result_id: str) -> Path:
    """Return the file of what a stage says while it is made elsewhere."""
    return Path(f"{store.partial(result_id)}.events")


class _Followed(ExitStack):
    """Shows what is written to a file of events."""

    def __init__(self, events: Path, reporter: Reporter) -> None:
        super().__init__()
        self._events, self._stage = events, reporter.within()
        self._of_stage = EventPlayer(reporter, self)
        self._in_stage = EventPlayer(self._stage, self)
        self._stream: IO[str] | None = None
        self._begun = 0
        self._rest = ""

    def play(self) -> None:
        """Show what is new."""
        if self._stream is None:
            try:
                self._stream = self.enter_context(self._events.open(encoding="utf-8"))
            except FileNotFoundError:  # nothing was said yet
                return
        *lines, self._rest = (self._rest + self._stream.read()).split("\n")
        for line in lines:
            try:
                event, *content = json.loads(line)
            except ValueError:  # cut off with the machine that wrote it, or empty
                continue
            if event == "stage":
                self._in_stage.play(*content)
            elif event != "begin":
                self._of_stage.play(event, *content)
            else:
                self._begun += 1
                self._in_stage.close()  # of an attempt that was cut off
                if self._begun > 1:
                    self._stage.say(f"its machine was lost; it begins again on {content[0]}")
