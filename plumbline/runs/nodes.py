"""Several machines that share each training: the first runs the recipe, the others take part.

The first machine leaves a mark in the home folder, which all of them share. Each of the others
finds the first one by its address, reads the mark, and waits. For a stage that is shared each is
told which one, and starts its own processes for it. A machine that ends, or cannot be reached any
more, ends the stage on all of them; the same commands resume it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
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
    """Where the processes of the stage find each other, on the first machine."""
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


def refuse_side_by_side(machines: Place | Nodes | None, parallel: int, on: str | None) -> None:
    """Raise `ConfigError` where there are several machines, and stages were to run side by side."""
    if machines is not None and (parallel > 1 or on is not None):
        raise ConfigError(
            "Several machines share each training, so no stages run side by side. Leave "
            "--parallel and --on out, or leave the machines to Ray (--on ray://HOST:PORT)."
        )


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


def launchers_store(place: Place) -> Any:
    """Return the store that a launcher such as torchrun has on the first machine."""
    from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

    try:
        return TCPStore(place.address, place.port, is_master=False, timeout=timedelta(seconds=MEET))
    except DistError as error:
        raise ConfigError(
            f"The launcher's store at {place.address}:{place.port}, by which machines find each "
            f"other, does not answer ({str(error).splitlines()[0]}). Start the launcher again on "
            "every machine."
        ) from None


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


def answer_within(connection: socket.socket, seconds: int) -> None:
    """Let reading fail where nothing comes for so long; 0: never."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


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
