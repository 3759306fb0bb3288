"""How the machines of a run meet: the first waits for the others, and lets in those it can trust.

The mark in the home folder holds a key by which the machines know each other. What they send is
pickled, as it is for a process on the same machine, and goes to nobody without that key. What
somebody without it says has no effect but a line for the user.
"""

from __future__ import annotations

import os
import pickle
import queue
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.errors import ConfigError, PlumblineError
from plumbline.runs.launch import Place
from plumbline.runs.nodes import (
    LOST,
    MARKS,
    MEET,
    NO_MARK,
    Hello,
    Nodes,
    Other,
    answer_within,
    hello_of,
    launchers_store,
    notice_loss,
    send,
)

#: Lines at most about machines that cannot read the mark.
_LINES = 10
#: Packages in which machines may differ.
_MAY_DIFFER = ("bitsandbytes", "gguf")


@contextmanager
def gathered(
    place: Place | None, processes: int, home: Path, say: Callable[[str], None]
) -> Iterator[Nodes | None]:
    """Wait for the other machines, and let them end with the block; None without any.

    Raises `ConfigError` where one is not like this one, or does not come in time.
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
        others = _meet(door, own, say)
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


class _Door:
    """Lets other machines in, those that can read the mark."""

    def __init__(self, place: Place, name: str, key: bytes) -> None:
        self._name, self._key = name.encode(), key
        self.came: queue.Queue[Other | Stranger | PlumblineError] = queue.Queue()
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
        with knocking:  # the connection has a number of its own for it
            connection = Connection(os.dup(knocking.fileno()))
            try:
                answer_within(knocking, LOST)
                connection.send_bytes(self._name)
                if connection.recv_bytes(64) == NO_MARK:
                    host = connection.recv_bytes(256).decode(errors="replace")
                    self.came.put(Stranger(_printable(host), address))
                    return
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                hello = connection.recv()
                answer_within(knocking, 0)
                self.came.put(Other(hello, connection))
            except (AuthenticationError, EOFError, OSError, ValueError):
                connection.close()  # who this was does not have the key
            except (AttributeError, ImportError, TypeError, pickle.UnpicklingError):
                connection.close()
                self.came.put(
                    ConfigError(
                        f"The machine at {address} shares the home folder, and has another version "
                        "of Plumbline. Install the same one on every machine."
                    )
                )


class Stranger(NamedTuple):
    """Who says that it cannot read the mark. Nothing shows that it is one of the machines."""

    host: str
    address: str


def _meet(door: _Door, own: Hello, say: Callable[[str], None]) -> list[Other]:
    """Return the other machines in their order, once all are there; raise where one cannot be."""
    others: dict[int, Other] = {}
    refused: list[Other] = []
    strangers: list[Stranger] = []
    deadline = time.monotonic() + MEET
    problem = None
    while problem is None and len(_waiting(others)) < own.machines - 1:
        try:
            came = door.came.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            problem = _missing(own, others, strangers)
            break
        if isinstance(came, PlumblineError):
            problem = str(came)
            break
        if isinstance(came, Stranger):
            if came not in strangers and len(strangers) < _LINES:
                strangers.append(came)
                say(f"  {_without_mark(came, own)} It is not let in; this machine waits on.")
            continue
        if _has_gone(came):
            continue  # who was started again may be let in before
        problem = _difference(own, came, _waiting(others))
        if problem is None:
            others[came.hello.number] = came
        else:
            refused.append(came)
    if problem is None:
        for other in others.values():
            send(other.connection, other.name, "welcome", 0)
        return [others[number] for number in sorted(others)]
    for other in [*others.values(), *refused]:
        with suppress(OSError):
            other.connection.send(("end", problem))
    raise ConfigError(problem)


def _waiting(others: dict[int, Other]) -> dict[int, Other]:
    """Forget the machines that were stopped meanwhile, and return the others."""
    for number, other in list(others.items()):
        if _has_gone(other):
            del others[number]
    return others


def _has_gone(other: Other) -> bool:
    """Return whether a machine was stopped: before the welcome none speaks, so this is an end."""
    if not other.connection.poll():
        return False
    other.connection.close()
    return True


def _missing(own: Hello, others: Mapping[int, Other], strangers: list[Stranger]) -> str:
    """Return that machines did not come, with what is known of why."""
    missing = ", ".join(str(n) for n in range(1, own.machines) if n not in others)
    known = "".join(f" {_without_mark(stranger, own)}" for stranger in strangers)
    return (
        f"Of {own.machines} machines, {missing} did not come within {MEET:.0f} seconds.{known} "
        "Start the same command on every machine, with its machine_rank, the address of the "
        "first, and a home folder that all share, at the same path."
    )


def _without_mark(stranger: Stranger, own: Hello) -> str:
    return (
        f"{stranger.host} ({stranger.address}) says that it does not see in its home folder what "
        f"this machine wrote to {own.home}."
    )


def _printable(text: str) -> str:
    """Return a text from the network as a terminal may show it."""
    return "".join(c for c in text if c.isascii() and (c.isalnum() or c in "-._")) or "a machine"


def _difference(own: Hello, other: Other, others: Mapping[int, Other]) -> str | None:
    """Return why a machine cannot take part; None if it can."""
    hello, same = other.hello, "Start the same command on every machine"
    if not 0 < hello.number < own.machines:
        return (
            f"{hello.host} says that it is machine {hello.number}, and of {own.machines} machines "
            f"the others are 1 to {own.machines - 1}. Give each its own machine_rank."
        )
    if hello.number in others:
        return (
            f"{hello.host} and {others[hello.number].hello.host} both say that they are machine "
            f"{hello.number}. Give each its own machine_rank."
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


def _tell_port(place: Place, port: int) -> Any:
    """Let the others know the port where the launcher has a store on the first machine."""
    if place.store_key is None:
        return None
    store = launchers_store(place)
    store.set(place.store_key, str(port))
    return store
