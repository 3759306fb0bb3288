"""Another machine than the first: it takes part in the stages that several processes share."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait
from pathlib import Path
from typing import Any

from plumbline.errors import ArtifactError, ConfigError, PlumblineError
from plumbline.runs import launch
from plumbline.runs.isolation import StageDiedError, exit_code, obituary, started
from plumbline.runs.launch import Place
from plumbline.runs.make import artifact_id
from plumbline.runs.nodes import (
    LOST,
    MARKS,
    MEET,
    NO_MARK,
    Order,
    answer_within,
    checkpoints_in,
    hello_of,
    launchers_store,
    made_in_store,
    notice_loss,
    receive,
    send,
)

Say = Callable[[str], None]
#: Seconds after which a file that another machine wrote must be there.
_APPEAR = 60.0
_BETWEEN_LOOKS = 0.1


class FirstMachine:
    """The first machine, as another one reaches it."""

    def __init__(self, connection: Connection, address: str) -> None:
        self.connection = connection
        self._name = f"The first machine ({address})"

    def receive(self) -> tuple[Any, ...]:
        """Return what it says next."""
        return receive(self.connection, self._name)

    def tell(self, *message: Any) -> None:
        """Say something to it."""
        send(self.connection, self._name, *message)

    def orders(self) -> Iterator[tuple[int, Order]]:
        """Yield the stages in which this machine is to take part, each with its number.

        Raises `PlumblineError` where the first machine ends with an error.
        """
        while True:
            event, *content = self.receive()
            if event == "end":
                if content[0] is not None:
                    raise PlumblineError(f"{self._name} has stopped: {content[0]}")
                return
            if event == "stage":
                yield content[0], content[1]


@contextmanager
def joined(place: Place, processes: int, home: Path, say: Say) -> Iterator[FirstMachine]:
    """Reach the first machine, and be known to it; raise `ConfigError` where that cannot be."""
    home = home.resolve()
    reached = _reach(place, say)
    answer_within(reached, LOST)  # or something else that listens there is waited for in silence
    connection = Connection(os.dup(reached.fileno()))
    try:
        name = Path(connection.recv_bytes(64).decode()).name
        key = _read_mark(home / MARKS / name)
        if key is None:
            connection.send_bytes(NO_MARK)
            connection.send_bytes(socket.gethostname().encode()[:256])
            raise ConfigError(
                f"What the first machine ({place.address}) wrote to its home folder is not in "
                f"{home} here. Set --home to a folder that all machines share, at the same path."
            )
        connection.send_bytes(b"read")
        answer_challenge(connection, key)
        deliver_challenge(connection, key)
        connection.send(hello_of(place, processes, home))
        answer_within(reached, 0)  # the first machine may wait for others yet
    except (AuthenticationError, EOFError, OSError, ValueError):
        connection.close()
        raise ConfigError(
            f"What answers at {place.address}, port {place.port}, is not the first machine of this "
            "run. Set main_process_port to a free port, on every machine."
        ) from None
    finally:
        reached.close()
    try:
        yield FirstMachine(connection, place.address)
    finally:
        connection.close()


def _wait_for_files(order: Order) -> str | None:
    """Wait until this machine sees a stage's folder as the first one does; else return why not."""
    deadline = time.monotonic() + _APPEAR
    while True:
        with suppress(FileNotFoundError):  # a folder that the first machine takes away meanwhile
            if order.partial.is_dir() and checkpoints_in(order.partial) == order.checkpoints:
                return None
        if time.monotonic() > deadline:
            return (
                f"{socket.gethostname()} does not see the checkpoints in {order.partial} that the "
                f"first machine sees ({', '.join(order.checkpoints) or 'none'}), after "
                f"{_APPEAR:.0f} seconds. Look at the shared file system."
            )
        time.sleep(_BETWEEN_LOOKS)


def take_part(place: Place, processes: int, home: Path, say: Say) -> None:
    """Take part in the shared stages of a run until the first machine ends it.

    ``processes``: of all machines together. Raises `PlumblineError` where the first machine stops
    with an error, or is lost.
    """
    say(f"Machine {place.number} of {place.machines}: looks for the first one at {place.address}.")
    with joined(place, processes, home, say) as first:
        say(f"Machine {place.number} of {place.machines}: takes part in what {place.address} runs.")
        for number, order in first.orders():
            say(f"  ▸ {order.partial.name}")
            problem = _problem_with(order)
            if problem is not None:
                first.tell(number, "error", problem)
            else:
                _make_part(first, number, order, place)


def _problem_with(order: Order) -> PlumblineError | None:
    """Return why this machine cannot take part in a stage; None if it can."""
    unseen = _wait_for_files(order)
    if unseen is not None:
        return ArtifactError(unseen)
    if not made_in_store(order.partial):
        return None
    function, arguments = order.function, order.arguments
    made_id = artifact_id(function, arguments, order.processes, order.sharding)
    if made_id == order.partial.name:
        return None
    return ConfigError(
        f"{socket.gethostname()} has other code for {function.__module__} than the first machine, "
        "or another file that the stage reads. Install the same version of Plumbline on every "
        "machine."
    )


def _make_part(first: FirstMachine, number: int, order: Order, place: Place) -> None:
    """Run this machine's processes of a stage until the first machine says that it is over."""
    own = launch.environments(order.processes, order.sharding, place, order.port)
    call = (order.function, order.partial, order.arguments, order.threads)
    environments = [{**order.variables, **each} for each in own]
    with started(call, environments) as members:
        listened_to: dict[Any, Any] = dict(members)
        waits_for_results = len(members)
        while True:
            ready = wait([first.connection, *listened_to])
            if first.connection in ready:
                event, *content = first.receive()
                if event == "over" and content[0] == number:
                    return
                continue
            source: Any = ready[0]
            try:
                event, *content = source.recv()
            except (EOFError, OSError):  # it ended between two messages, or within one
                reason = obituary(exit_code(listened_to.pop(source)))
                died = StageDiedError(f"On {socket.gethostname()}: {reason}")
                first.tell(number, "error", died)
                continue
            if event == "result":
                waits_for_results -= 1
                if waits_for_results == 0:
                    first.tell(number, event, *content)
            elif event in ("error", "failed"):
                first.tell(number, event, *content)
            if event in ("result", "error", "failed"):
                del listened_to[source]


def _reach(place: Place, say: Say) -> socket.socket:
    """Return a connection to the first machine, which may start later than this one."""
    deadline = time.monotonic() + MEET
    reason = None
    port = _ask_port(place)
    while True:
        try:
            reached = socket.create_connection((place.address, port), timeout=LOST)
        except OSError as error:
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"The first machine cannot be reached at {place.address}:{port} ({error}). "
                    "Set main_process_ip and main_process_port to where it is, and start the same "
                    "command there."
                ) from None
            if str(error) != reason:  # that it does not listen yet, or a name that nobody knows
                reason = str(error)
                say(
                    f"  {place.address}:{port} does not answer ({error.strerror or reason}); tries "
                    f"again for {MEET:.0f} seconds."
                )
            time.sleep(_BETWEEN_LOOKS)
            continue
        reached.settimeout(None)
        notice_loss(reached)
        return reached


def _read_mark(mark: Path) -> bytes | None:
    """Return what the first machine left, which a network file system may show a little later."""
    deadline = time.monotonic() + (_APPEAR if mark.parents[1].is_dir() else 0.0)
    while True:
        try:
            return mark.read_bytes()
        except OSError:
            if time.monotonic() > deadline:
                return None
            time.sleep(_BETWEEN_LOOKS)


def _ask_port(place: Place) -> int:
    if place.store_key is None:
        return place.port
    return int(launchers_store(place).get(place.store_key))
