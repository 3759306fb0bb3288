"""What stands between the network and Argilla: names of hosts, headers, limits and sign-ins.

Plain ASGI, so that it can be tested without Argilla and cannot slow it down.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable

from .asgi import App, Message, Receive, Scope, Send, refuse
from .devices import Devices
from .limits import LimitedBody, RoleOf, problem_with_head, without_costly_ranges
from .lockout import Lockout
from .sign_in import SignIn, is_sign_in

_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
#: Parts of Argilla that no labelling site needs: signing in by other services (off here, and so are
#: the libraries behind it), and a page that puts a name from its address into its text unescaped.
_CLOSED = re.compile(r"/+(api/+v1/+oauth2|share-your-progress)(/|$)")


def content_security_policy(pages: Iterable[str]) -> str:
    """Return a policy that lets the pages run their own scripts, and load nothing from elsewhere.

    The pages' few inline scripts are named by their hashes. Pictures come only from this site: an
    ``<img>`` in a record would show its host who reads what, and when.
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
    """Accepts connections only from the named proxies and from this machine."""

    def __init__(self, app: App, proxies: Iterable[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in proxies]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what comes from a proxy or from this machine."""
        if scope["type"] == "lifespan" or self._is_accepted(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(send, 403, "This site is reached through its proxy.")
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_accepted(self, scope: Scope) -> bool:
        try:
            address = ipaddress.ip_address(scope["client"][0])
        except (LookupError, TypeError, ValueError):
            return False
        # This machine itself may always connect: `annotate users` and `annotate pull` do. A request
        # that comes from the very address that it came to is from this machine, too.
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
        secret: bytes = b"",
        origins: Iterable[str] = (),
        role_of: RoleOf | None = None,
    ) -> None:
        """Prepare to guard.

        ``secret`` signs the cookies of known devices, ``origins`` are those of this site's pages,
        and ``role_of`` returns the role of a request's sender, by its headers.
        """
        self._limited = LimitedBody(app, role_of)
        devices = Devices(secret, secure=secure)
        self._sign_in = SignIn(app, lockout, devices, frozenset(origins))
        self._hosts = {host.lower() for host in hosts}
        self._secure = secure
        self._app = app
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
        """Pass a request on, or refuse it; the reply gets its headers either way."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # Argilla has no websockets, so nobody needs any
            await send({"type": "websocket.close", "code": 1008})
            return
        host = _name_of(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
        guarded = self._with_headers(send, host)
        problem = problem_with_head(scope)
        if problem is not None:
            await refuse(guarded, *problem, [(b"connection", b"close")])
        elif host not in self._hosts:
            # The name of a page elsewhere may point here (DNS rebinding); it gets no answer.
            await refuse(
                guarded,
                421,
                f"This site does not answer to the name {host[:200]!r}. The person who runs it can "
                "add the name: plumbline annotate up --allow-host NAME",
            )
        elif _CLOSED.match(scope["path"]):
            await refuse(guarded, 404, "This site does not have this page.")
        elif is_sign_in(scope):
            await self._sign_in(scope, receive, guarded)
        else:
            without_costly_ranges(scope)
            await self._limited(scope, receive, guarded)

    def _with_headers(self, send: Send, host: str) -> Send:
        """Return a ``send`` that adds this site's headers to every reply."""
        added = [*self._headers]
        if self._secure and not _is_this_machine(host):
            # For this machine's own name, it would hold for everything else that is served here.
            added.append((b"strict-transport-security", b"max-age=31536000"))
        ours = {name for name, _ in added}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message["headers"] if header[0].lower() not in ours]
                message["headers"] = [*kept, *added]
            await send(message)

        return send_guarded


def _name_of(host: str) -> str:
    """Return a Host header's name without its port."""
    parts = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:]*)(:\d+)?", host.strip())
    return parts[1].lower().rstrip(".") if parts else ""


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
