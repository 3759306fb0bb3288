"""Types of ASGI, and a reply that refuses a request."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]


async def refuse(
    send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Reply with a status and the reason, in the form of Argilla's own errors."""
    body = json.dumps({"detail": detail}).encode()
    kind = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": kind + (headers or [])})
    await send({"type": "http.response.body", "body": body})


def declared_length(headers: Headers) -> int:
    """Return the length that a request says it has; 0 where it says none."""
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
