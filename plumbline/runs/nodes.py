"""Several machines that share each training: the first runs the recipe, the others take part.

The first machine leaves a mark in the home folder, which all of them share. Each of the others
finds the first one by its address, reads the mark, and waits. For a stage that is shared each is
told which one, and starts its own processes for it. A machine that ends, or cannot be reached any
more, ends the stage on all of them; the same commands resume it.

The mark holds a key by which the machines know each other. What they send is pickled, as it is for
a process on the same machine, and goes to nobody without that key.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.errors import ConfigError, PlumblineError
from plumbline.runs.artifacts import PARTIAL
from plumbline.runs.launch import Place, gpus
from plumbline.runs.machine import versions
from plumbline.runs.stage import DONE, PARTS

MARKS = ".machines"
#: Seconds that machines wait for each other at the start.
MEET = 600.0
#: Seconds without an answer after which a machine counts as lost.
LOST = 30
NO_MARK = b"no mark"
#: Packages in which machines may differ.
_MAY_DIFFER = ("bitsandbytes", "gguf")


class Hello(NamedTuple):
    """A machine, as it introduces itself."""

    number: int
    machines: int
    processes: int
    home: str
    versions: Mapping[str, str]
    has_gpus: bool
    host: str


class Order(NamedTuple):
    """A stage in which the other machines are to take part."""

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    partial: Path
    processes: int
    sharding: str | None
    port: int
    """Where the first process of the stage is found."""
    threads: int | None
    variables: Mapping[str, str]
    checkpoints: list[str]


class Other(NamedTuple):
    """Another machine, as the first one knows it."""

    hello: Hello
    connection: Connection

    @property
    def name(self) -> str:
        """What to call it."""
        return f"Machine {self.hello.number} ({self.hello.host})"


class Nodes:
    """The other machines that take part in stages, as the first one reaches them."""

    def __init__(self, place: Place, others: list[Other]) -> None:
        self.place = place
        self.others = others
        self._stages = 0

    @contextmanager
    def taking_part(self, order: Order) -> Iterator[list[Other]]:
        """Let the other machines take part in a stage while the block runs."""
        self._stages += 1
        for other in self.others:
            send(other.connection, other.name, "stage", self._stages, order)
        try:
            yield self.others
        finally:
            for other in self.others:
                with suppress(PlumblineError):
                    send(other.connection, other.name, "over", self._stages)

    def heard(self, other: Other) -> tuple[Any, ...] | None:
        """Return what a machine says in the present stage; None if it is about an older one."""
        stage, *event = receive(other.connection, other.name)
        return tuple(event) if stage == self._stages else None

    def end(self, problem: str | None) -> None:
        """Let the other machines end, with the reason where there is one."""
        for other in self.others:
            with suppress(PlumblineError):
                send(other.connection, other.name, "end", problem)
            other.connection.close()


@contextmanager
def gathered(place: Place | None, processes: int, home: Path) -> Iterator[Nodes | None]:
    """Wait for the other machines, and let them end with the block; None without any.

    Raises `ConfigError` where one does not share the home folder, or is not like this one.
    """
    if place is None:
        yield None
        return
    home = home.resolve()
    folder = home / MARKS
    folder.mkdir(parents=True, exist_ok=True)
    name, key = secrets.token_hex(8), secrets.token_hex(32)
    mark = folder / name
    with os.fdopen(os.open(mark, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as stream:
        stream.write(key)
    own = hello_of(place, processes, home)
    door = _Door(place, name, key.encode())
    try:
        others = _meet(door, own)
    finally:
        door.close()
        mark.unlink(missing_ok=True)
    nodes = Nodes(place, others)
    try:
        yield nodes
    except BaseException as error:
        nodes.end(str(error) or type(error).__name__)
        raise
    nodes.end(None)


def without_side_by_side(nodes: Nodes | None, parallel: int, on: str | None) -> Nodes | None:
    """Return the other machines; raise `ConfigError` where stages were to run side by side, too."""
    if nodes is not None and (parallel > 1 or on is not None):
        raise ConfigError(
            "Several machines share each training, so no stages run side by side. Leave "
            "--parallel and --on out, or leave the machines to Ray (--on ray://HOST:PORT)."
        )
    return nodes


class _Door:
    """Lets other machines in, those that can read the mark."""

    def __init__(self, place: Place, name: str, key: bytes) -> None:
        self._name, self._key = name.encode(), key
        self.came: queue.Queue[Other | str] = queue.Queue()
        port = 0 if place.store_key is not None else place.port
        try:
            self._socket = socket.create_server(("", port), backlog=place.machines)
        except OSError as error:
            raise ConfigError(
                f"Port {port} of this machine, where the others are to find it, cannot be used "
                f"({error.strerror}). Set main_process_port to another one, on every machine."
            ) from None
        # Kept, since a store of the launcher's is told the port through it.
        self._told = _tell_port(place, self._socket.getsockname()[1])
        self._closed = False
        threading.Thread(target=self._open, daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._socket.close()

    def _open(self) -> None:
        while not self._closed:
            try:
                knocking, address = self._socket.accept()
            except OSError:
                continue
            threading.Thread(target=self._let_in, args=(knocking, address[0]), daemon=True).start()

    def _let_in(self, knocking: socket.socket, address: str) -> None:
        notice_loss(knocking)
        connection = Connection(knocking.detach())
        with suppress(AuthenticationError, EOFError, OSError, ValueError):
            connection.send_bytes(self._name)
            if connection.recv_bytes(64) == NO_MARK:
                host = connection.recv_bytes(256).decode(errors="replace")
                self.came.put(f"{host} ({address})")
                return
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            self.came.put(Other(connection.recv(), connection))


def _meet(door: _Door, own: Hello) -> list[Other]:
    """Return the other machines in their order, once all are there; raise where one cannot be."""
    others: dict[int, Other] = {}
    deadline = time.monotonic() + MEET
    problem = None
    while problem is None and len(others) < own.machines - 1:
        try:
            came = door.came.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            missing = ", ".join(str(n) for n in range(1, own.machines) if n not in others)
            problem = (
                f"Of {own.machines} machines, {missing} did not come within {MEET:.0f} seconds. "
                "Start the same command on every machine, with its machine_rank and the address "
                "of the first."
            )
            break
        if isinstance(came, str):
            problem = (
                f"{came} does not share the folder {own.home} with this machine. Set --home to a "
                "folder that all machines share, at the same path."
            )
            break
        problem = _difference(own, came, others)
        others[came.hello.number] = came
    if problem is None:
        for other in others.values():
            other.connection.send(("welcome", 0))
        return [others[number] for number in sorted(others)]
    for other in others.values():
        with suppress(OSError):
            other.connection.send(("end", problem))
    raise ConfigError(problem)


def _difference(own: Hello, other: Other, others: Mapping[int, Other]) -> str | None:
    """Return why a machine cannot take part; None if it can."""
    hello, same = other.hello, "Start the same command on every machine"
    if hello.number in others or not 0 < hello.number < own.machines:
        return (
            f"{hello.host} says that it is machine {hello.number}, as another one does, or one "
            f"beyond the {own.machines} that there are. Give each its own machine_rank."
        )
    if (hello.machines, hello.processes) != (own.machines, own.processes):
        return (
            f"{other.name} was started for {hello.processes} processes on {hello.machines} "
            f"machines, and this one for {own.processes} on {own.machines}. {same}."
        )
    if hello.home != own.home:
        return (
            f"The home folder of {other.name} is {hello.home}, and here it is {own.home}. {same}."
        )
    if hello.has_gpus != own.has_gpus:
        return (
            f"{other.name} has {'GPUs' if hello.has_gpus else 'no GPU'}, and this one has "
            f"{'GPUs' if own.has_gpus else 'none'}. Use machines of one kind, or hide the GPUs "
            "(CUDA_VISIBLE_DEVICES=)."
        )
    names = sorted({*own.versions, *hello.versions} - {*_MAY_DIFFER})
    other_versions = [
        f"{name} {hello.versions.get(name, 'absent')} (here {own.versions.get(name, 'absent')})"
        for name in names
        if hello.versions.get(name) != own.versions.get(name)
    ]
    if other_versions:
        return (
            f"{other.name} has {', '.join(other_versions)}. Install the same versions on every "
            "machine."
        )
    return None


def checkpoints_in(partial: Path) -> list[str]:
    """Return the checkpoints of a stage and of its parts, and which parts are done, by paths."""
    places = ("**/checkpoints/step-*", f"{PARTS}/*/{DONE}")
    paths = (path for place in places for path in partial.glob(place))
    return sorted(str(path.relative_to(partial)) for path in paths)


def made_in_store(partial: Path) -> bool:
    """Return whether a stage is made in a store, so that its folder has the artefact's id."""
    return partial.parent.name == PARTIAL


def hello_of(place: Place, processes: int, home: Path) -> Hello:
    """Return this machine, as it introduces itself."""
    host = socket.gethostname()
    return Hello(place.number, place.machines, processes, str(home), versions(), gpus() > 0, host)


def _tell_port(place: Place, port: int) -> Any:
    """Let the others know the port where the launcher has a store on the first machine."""
    if place.store_key is None:
        return None
    store = launchers_store(place)
    store.set(place.store_key, str(port))
    return store


def launchers_store(place: Place) -> Any:
    """Return the store that a launcher such as torchrun has on the first machine."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(place.address, place.port, is_master=False, timeout=timedelta(seconds=MEET))


def notice_loss(connection: socket.socket) -> None:
    """Let a connection end when the other machine does not answer any more."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", LOST // 3),
        ("TCP_KEEPINTVL", LOST // 6),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", LOST * 1000),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def send(connection: Connection, who: str, *message: Any) -> None:
    """Say something to another machine; raise `PlumblineError` where it is lost."""
    try:
        connection.send(message)
    except OSError:
        raise _lost(who) from None


def receive(connection: Connection, who: str) -> tuple[Any, ...]:
    """Return what another machine says next; raise `PlumblineError` where it is lost."""
    try:
        message: tuple[Any, ...] = connection.recv()
    except (EOFError, OSError):
        raise _lost(who) from None
    return message


def _lost(who: str) -> PlumblineError:
    """Return the error of a machine that does not answer."""
    return PlumblineError(
        f"{who} has ended, or cannot be reached. Every machine stops; the same commands resume "
        "from the last checkpoint."
    )
