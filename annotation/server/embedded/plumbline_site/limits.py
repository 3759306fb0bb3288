"""Limits on the size, the time and the number of requests.

A request from somebody who has not signed in must cost little. So its body may be small only, and
nobody's body is read without end. Argilla would read a whole body before it asks who sent it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .asgi import App, Headers, Message, Receive, Scope, Send, declared_length, refuse

KIB, MIB = 1024, 1024 * 1024
LONGEST_ADDRESS, LONGEST_PATH, LONGEST_NAME = 8 * KIB, 2 * KIB, 255
"""Bytes of path and query together, of a path, and of a name within a path.

No file system has longer names, and Argilla fails with an error of the server on a longer one.
"""
LARGEST_HEADERS, MOST_HEADERS = 32 * KIB, 100
LARGEST_BODY: dict[str | None, int] = {
    None: 64 * KIB,  # not signed in
    "annotator": MIB,  # an answer, with its reason
    "admin": 256 * MIB,  # 500 records
    "owner": 256 * MIB,
}
"""Bytes of a request's body, by the role of its sender."""
BODY_SECONDS = 30.0
"""How long a sender may pause within a body."""

RoleOf = Callable[[Headers], Awaitable[str | None]]


def problem_with_head(scope: Scope) -> tuple[int, str] | None:
    """Return status and reason where a request's address or headers are too large, or None."""
    path = scope["path"].encode("utf-8", "surrogatepass")
    address = len(scope.get("raw_path") or path) + len(scope.get("query_string", b""))
    if address > LONGEST_ADDRESS or len(path) > LONGEST_PATH:
        return 414, f"An address may have {LONGEST_ADDRESS // KIB} KiB, and a path 2 KiB."
    if max(map(len, path.split(b"/"))) > LONGEST_NAME:
        return 414, f"A name within an address may have {LONGEST_NAME} bytes."
    if not path.startswith(b"/"):  # joined to the host's name, it would be another host
        return 400, "An address begins with a slash."
    if b"\0" in path:
        return 400, "An address has no zero bytes."
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > LARGEST_HEADERS or len(scope["headers"]) > MOST_HEADERS:
        return 431, f"A request may have {MOST_HEADERS} headers and {LARGEST_HEADERS // KIB} KiB."
    return None


def without_costly_ranges(scope: Scope) -> None:
    """Let a request ask for one range of a file, and ignore a list of ranges.

    Servers have spent minutes on a header with thousands of ranges.
    """
    scope["headers"] = [
        (name, value)
        for name, value in scope["headers"]
        if name != b"range" or (len(value) <= 64 and value.count(b",") == 0)
    ]


async def _nobody(_: Headers) -> str | None:
    return None


class LimitedBody:
    """Passes a request on, and ends it when its body is too large or too slow."""

    def __init__(self, app: App, role_of: RoleOf | None = None) -> None:
        self._app = app
        self._role_of = role_of or _nobody

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; the sender's role is looked up only for a large body."""
        headers: Headers = dict(scope["headers"])
        limit, is_looked_up = LARGEST_BODY[None], False
        taken, is_refused, is_complete = 0, False, False

        async def allow(size: int) -> tuple[int, str] | None:
            """Return why so many bytes are refused, or None."""
            nonlocal limit, is_looked_up
            if size > limit and not is_looked_up:
                role, is_looked_up = await self._role_of(headers), True
                limit = LARGEST_BODY.get(role, LARGEST_BODY[None])
            if size <= limit:
                return None
            return 413, f"A request from you may have {_size(limit)} at most."

        async def refuse_once(problem: tuple[int, str]) -> Message:
            nonlocal is_refused
            if not is_refused:
                is_refused = True
                await refuse(send, *problem, [(b"connection", b"close")])
            return {"type": "http.disconnect"}

        async def receive_some() -> Message:
            nonlocal taken, is_complete
            if is_refused:
                return {"type": "http.disconnect"}
            if is_complete:  # nothing comes but the end of the connection, whenever that is
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_SECONDS)
            except TimeoutError:
                return await refuse_once((408, "The request was not sent to its end in time."))
            taken += len(message.get("body", b""))
            is_complete = not message.get("more_body")
            problem = await allow(taken)
            return message if problem is None else await refuse_once(problem)

        async def send_unless_refused(message: Message) -> None:
            if not is_refused:
                await send(message)

        problem = await allow(declared_length(headers))
        if problem is not None:
            await refuse_once(problem)
            return
        await self._app(scope, receive_some, send_unless_refused)


def _size(limit: int) -> str:
    return f"{limit // MIB} MiB" if limit >= MIB else f"{limit // KIB} KiB"
