"""Limits on connections: how many an address may hold, and how long a request's head may take."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import mmap
import os
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_CONNECTIONS = 2000
"""Connections of all addresses together."""
MOST_PER_ADDRESS = 300
"""Connections of one address; an office with 50 labellers may share one."""
HEAD_SECONDS = 20.0
"""How long the head of a request may take, from its first byte or from the connection."""


class Held(Protocol):
    """The connections that are held now."""

    def add(self, address: str, number: int) -> None:
        """Count connections of an address; a negative number ends some."""

    def of(self, address: str) -> int:
        """Return the connections of an address."""

    def total(self) -> int:
        """Return the connections of all."""


class HeldByOne(Held):
    """The connections of one process."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    @override
    def add(self, address: str, number: int) -> None:
        self._held[address] += number
        if self._held[address] <= 0:
            del self._held[address]

    @override
    def of(self, address: str) -> int:
        return self._held[address]

    @override
    def total(self) -> int:
        return self._held.total()


class HeldByAll(Held):
    """The connections of several processes, in memory that they share.

    Made before the processes are forked. Each writes only its own part, so there is no lock; a
    process that ends leaves its part to be cleared. Addresses are counted by a secret hash: two may
    share a count, and nobody can choose which.
    """

    _PLACES = 2**14

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._memory = memoryview(mmap.mmap(-1, 4 * processes * self._PLACES)).cast("i")
        self._totals = memoryview(mmap.mmap(-1, 4 * processes)).cast("i")
        self._secret = os.urandom(16)
        self._own = 0

    def take(self, process: int) -> None:
        """Count for this process from now on; what another counted in its place is gone."""
        self._own = process
        first = process * self._PLACES
        self._memory[first : first + self._PLACES] = memoryview(bytes(4 * self._PLACES)).cast("i")
        self._totals[process] = 0

    @override
    def add(self, address: str, number: int) -> None:
        self._memory[self._own * self._PLACES + self._place(address)] += number
        self._totals[self._own] += number

    @override
    def of(self, address: str) -> int:
        place = self._place(address)
        return sum(self._memory[n * self._PLACES + place] for n in range(self._processes))

    @override
    def total(self) -> int:
        return sum(self._totals)

    def _place(self, address: str) -> int:
        digest = hashlib.blake2b(address.encode(), key=self._secret, digest_size=4).digest()
        return int.from_bytes(digest) % self._PLACES


def limited(proxies: Iterable[str] = (), held: Held | None = None) -> type[asyncio.Protocol]:
    """Return a protocol for uvicorn.

    Proxies, by their networks, and this machine itself may hold any number: they hold the
    connections of many people. ``held`` counts over several processes.
    """
    counted: Held = HeldByOne() if held is None else held
    networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    class LimitedProtocol(HttpToolsProtocol):
        """HTTP on one connection, which is closed where it waits too long or is one too many."""

        _deadline: asyncio.TimerHandle | None = None
        _address = ""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._address = (transport.get_extra_info("peername") or ("",))[0]
            counted.add(self._address, 1)
            self._wait_for_head()
            is_one_too_many = counted.of(self._address) > MOST_PER_ADDRESS
            if (
                is_one_too_many and not _is_exempt(self._address, networks)
            ) or counted.total() > MOST_CONNECTIONS:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            counted.add(self._address, -1)
            self._head_is_here()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait_for_head()

        def on_headers_complete(self) -> None:
            self._head_is_here()
            super().on_headers_complete()

        def _wait_for_head(self) -> None:
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

        def _head_is_here(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._deadline = None
            if self.transport is not None and not self.transport.is_closing():
                self.transport.abort()

    return LimitedProtocol


def _is_exempt(address: str, networks: Iterable[Any]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_loopback or any(parsed in network for network in networks)
