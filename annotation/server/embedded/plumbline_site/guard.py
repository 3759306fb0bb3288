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
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl, urlencode

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
    """Accepts requests from the named proxies only."""

    def __init__(self, app: App, proxies: Iterable[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from a proxy or from this machine."""
        if scope["type"] == "lifespan" or self._is_let_in(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, 403, "This site is reached through its proxy.")
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_let_in(self, scope: Scope) -> bool:
        try:
            address = ipaddress.ip_address(scope["client"][0])
        except (LookupError, TypeError, ValueError):
            return False
        # This machine itself may always come in: `annotate users` and `annotate pull` do. What
        # comes from the very address that it came to is from this machine, too.
        server = scope.get("server") or ("",)
        here = address.is_loopback or scope["client"][0] == server[0]
        return here or any(address in network for network in self._networks)


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
        self._secure = secure
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-frame-options", b"DENY"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; the answer gets its headers either way."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # Argilla has no websockets, so nobody is to try for any
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        host = _name_of(headers.get(b"host", b"").decode("latin-1"))
        added = [*self._headers]
        if self._secure and not _is_this_machine(host):
            # For this machine's own name it would also hold for other sites that it serves.
            added.append((b"strict-transport-security", b"max-age=31536000"))
        ours = {name for name, _ in added}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0].lower() not in ours]
                message["headers"] = [*kept, *added]
            await send(message)

        if host not in self._hosts:
            # A page elsewhere may have its name point here (DNS rebinding); it is not let in.
            await _refuse(
                send_guarded,
                421,
                f"This site does not answer to the name {host!r}. Its administrator can add the "
                "name: plumbline annotate up --allow-host NAME",
            )
        elif _is_login(scope):
            await self._login(scope, receive, send_guarded, headers)
        else:
            await self._pass_on(scope, receive, send_guarded, headers)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]
    ) -> None:
        """Pass a request on unless it is too large; the length that it claims is not trusted."""
        too_large = f"A request may be {_LARGEST_BODY // 2**20} MiB at most."
        if _length(headers) > _LARGEST_BODY:
            await _refuse(send, 413, too_large)
            return
        taken = 0
        is_refused = False

        async def receive_some() -> Message:
            nonlocal taken, is_refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > _LARGEST_BODY:
                if not is_refused:
                    is_refused = True
                    await _refuse(send, 413, too_large)
                return {"type": "http.disconnect"}
            return message

        async def send_unless_refused(message: Message) -> None:
            if not is_refused:
                await send(message)

        await self._app(scope, receive_some, send_unless_refused)

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
        form = _form(body, headers.get(b"content-type", b""))
        user = form.get("username", "")
        address = scope["client"][0] if scope.get("client") else ""
        wait = self._lockout.begin(user, address)
        if wait > 0:
            await _refuse(
                send,
                429,
                f"Too many wrong passwords. Try again in {max(1, round(wait / 60))} minutes, or "
                "ask the administrator of this site: plumbline annotate users unlock NAME",
                [(b"retry-after", str(max(1, round(wait))).encode())],
            )
            return
        # Sent on as it was understood here. Two readers of one form may find two names in it, and
        # the attempts would be counted against the wrong one.
        body = urlencode(form).encode()
        scope["headers"] = [
            header
            for header in scope["headers"]
            if header[0] not in (b"content-type", b"content-length", b"transfer-encoding")
        ]
        scope["headers"] += [
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(body)).encode()),
        ]
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


def _is_login(scope: Scope) -> bool:
    """Return whether a request may reach the login, however its path is spelt."""
    parts = [part for part in re.split(r"[/\s]+", scope["path"]) if part not in ("", ".")]
    return scope["method"] == "POST" and parts == LOGIN.strip("/").split("/")


def _form(body: bytes, content_type: bytes) -> dict[str, str]:
    """Return a login form's name and password; where one is given twice, the last."""
    if content_type.lower().startswith(b"multipart/form-data"):
        message = BytesParser(policy=HTTP).parsebytes(
            b"Content-Type: " + content_type + b"\r\n\r\n" + body
        )
        pairs = [
            (
                str(part.get_param("name", header="content-disposition")),
                bytes(part.get_payload(decode=True) or b"").decode("utf-8", "replace"),
            )
            for part in message.walk()
            if not part.is_multipart()
        ]
    else:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: value for name, value in pairs if name in ("username", "password")}


def _name_of(host: str) -> str:
    """Return a Host header's name without its port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(:\d+)?", host.strip())
    return found[1].lower().rstrip(".") if found else ""


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _length(headers: dict[bytes, bytes]) -> int:
    value = headers.get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


async def _refuse(
    send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps({"detail": detail}).encode()
    kind = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": kind + (headers or [])})
    await send({"type": "http.response.body", "body": body})
