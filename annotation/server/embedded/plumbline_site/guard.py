"""What stands between the network and Argilla: hosts, headers and attempts at passwords.

Plain ASGI, so that it can be tested without Argilla and cannot slow it down.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from .lockout import Lockout

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN = "/api/v1/token"
_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_LARGEST_LOGIN = 16 * 1024
_LARGEST_BODY = 256 * 1024 * 1024


def content_security_policy(pages: Iterable[str]) -> str:
    """Return a policy that lets the page run its own scripts, and nothing come from outside.

    The page's few inline scripts are named by their hashes. Pictures come from this site alone: an
    ``<img>`` in a record would tell its host who reads what, and when.
    """
    hashes = sorted(
        {
            base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            for page in pages
            for script in _INLINE_SCRIPT.findall(page)
            if script
        }
    )
    scripts = " ".join(["'self'", *(f"'sha256-{value}'" for value in hashes)])
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",  # the page sets styles on elements
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-src 'self'",
            "frame-ancestors 'none'",
        ]
    )


class OnlyFrom:
    """Lets in only the named proxies; whoever goes around them is turned away."""

    def __init__(self, app: App, proxies: Iterable[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_let_in(scope.get("client")):
            await _refuse(send, 403, "This site is reached through its proxy.")
            return
        await self._app(scope, receive, send)

    def _is_let_in(self, client: Any) -> bool:
        try:
            address = ipaddress.ip_address(client[0])
        except (TypeError, ValueError):
            return False
        # This machine itself may always come in: `annotate users` and `annotate pull` do.
        return address.is_loopback or any(address in network for network in self._networks)


class Guard:
    """Wraps an ASGI application."""

    def __init__(
        self,
        app: App,
        *,
        hosts: Iterable[str],
        policy: str,
        lockout: Lockout,
        secure: bool = False,
    ) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._lockout = lockout
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-frame-options", b"DENY"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        ]
        if secure:
            self._headers.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in self._headers}
                kept = [header for header in message["headers"] if header[0].lower() not in ours]
                message["headers"] = [*kept, *self._headers]
            await send(message)

        host = _name_of(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._hosts:
            # A page elsewhere may have its name point here (DNS rebinding); it is not let in.
            await _refuse(
                send_guarded,
                421,
                f"This site does not answer to the name {host!r}. Whoever runs it can add the "
                "name: plumbline annotate up --allow-host NAME",
            )
        elif _length(headers) > _LARGEST_BODY:
            await _refuse(send_guarded, 413, "A request may be 256 MiB at most.")
        elif scope["path"].rstrip("/") == LOGIN and scope["method"] == "POST":
            await self._login(scope, receive, send_guarded, headers)
        else:
            await self._app(scope, receive, send_guarded)

    async def _login(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]
    ) -> None:
        if _length(headers) > _LARGEST_LOGIN:
            await _refuse(send, 413, "A login this long is none.")
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > _LARGEST_LOGIN:
                await _refuse(send, 413, "A login this long is none.")
                return
            if not message.get("more_body"):
                break
        user = _username(body, headers.get(b"content-type", b""))
        address = scope["client"][0] if scope.get("client") else ""
        wait = self._lockout.begin(user, address)
        if wait > 0:
            await _refuse(
                send,
                429,
                f"Too many wrong passwords. Try again in {max(1, round(wait / 60))} minutes, or "
                "ask whoever runs this site: plumbline annotate users unlock NAME",
                [(b"retry-after", str(round(wait)).encode())],
            )
            return
        status = 500
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, replay, watch)
        finally:
            if 200 <= status < 300:
                self._lockout.succeeded(user, address)


def _username(body: bytes, content_type: bytes) -> str:
    """Return the name in a login form, as it will be read by what is behind."""
    if content_type.startswith(b"multipart/form-data"):
        found = re.search(
            rb'name="?username"?\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', body, re.S
        )
        return found[1].decode("utf-8", "replace") if found else ""
    values = parse_qs(body.decode("utf-8", "replace")).get("username", [""])
    return values[-1]


def _name_of(host: str) -> str:
    """Return a Host header's name without its port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(:\d+)?", host.strip())
    return found[1].lower().rstrip(".") if found else ""


def _length(headers: dict[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


async def _refuse(
    send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps({"detail": detail}).encode()
    kind = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": kind + (headers or [])})
    await send({"type": "http.response.body", "body": body})
