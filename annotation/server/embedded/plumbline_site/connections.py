"""Limits on connections: how many an address may hold, and how long a request's head may take."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_CONNECTIONS = 2000
"""Connections of all addresses together."""
MOST_PER_ADDRESS = 300
"""Connections of one address; an office with 50 labellers may share one."""
HEAD_SECONDS = 20.0
"""How long the head of a request may take, from its first byte or from the connection."""


def limited(proxies: Iterable[str] = ()) -> type[asyncio.Protocol]:
    """Return a protocol for uvicorn.

    Proxies, by their networks, and this machine itself may hold any number: they hold the
    connections of many people.
    """
    held: Counter[str] = Counter()
    networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    class LimitedProtocol(HttpToolsProtocol):
        """HTTP on one connection, which is closed where it waits too long or is one too many."""

        _deadline: asyncio.TimerHandle | None = None
        _address = ""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._address = (transport.get_extra_info("peername") or ("",))[0]
            held[self._address] += 1
            self._wait_for_head()
            is_one_too_many = held[self._address] > MOST_PER_ADDRESS
            if (
                is_one_too_many and not _is_exempt(self._address, networks)
            ) or held.total() > MOST_CONNECTIONS:
                transport.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            held[self._address] -= 1
            if held[self._address] <= 0:
                del held[self._address]
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
