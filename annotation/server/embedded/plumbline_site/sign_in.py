"""Sign-in requests: counted, refused from other pages, and passed on as they were understood."""

from __future__ import annotations

import re
from collections.abc import Collection
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl, urlencode

from .asgi import App, Headers, Message, Receive, Scope, Send, declared_length, refuse
from .devices import Devices
from .lockout import Lockout

PATH = "/api/v1/token"
_LARGEST_FORM = 16 * 1024


class SignIn:
    """Stands before Argilla's sign-in."""

    def __init__(
        self, app: App, lockout: Lockout, devices: Devices, origins: Collection[str]
    ) -> None:
        self._app = app
        self._lockout = lockout
        self._devices = devices
        self._origins = {origin.lower() for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count an attempt, and pass it on unless its sender has to wait."""
        headers: Headers = dict(scope["headers"])
        if self._is_foreign(headers):
            # Else any page that a person opens could lock that person with wrong passwords.
            await refuse(send, 403, "Sign in on this site's own page.")
            return
        body = await _form_body(headers, receive, send)
        if body is None:
            return
        form = form_of(body, headers.get(b"content-type", b""))
        user = form.get("username", "")
        address = scope["client"][0] if scope.get("client") else ""
        device = self._devices.recognize(user, headers)
        wait = self._lockout.begin(user, address, device)
        if wait > 0:
            await refuse(
                send,
                429,
                f"Too many wrong passwords. Try again in {max(1, round(wait / 60))} minutes, or "
                "ask the person who runs this site: plumbline annotate users unlock NAME",
                [(b"retry-after", str(max(1, round(wait))).encode())],
            )
            return
        status = await self._pass_on(scope, receive, send, form, new_device=device is None)
        if 200 <= status < 300:
            self._lockout.succeeded(user, address, device)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, form: dict[str, str], *, new_device: bool
    ) -> int:
        """Send the form on as it was understood here; return the reply's status.

        Two readers of one form may find two names in it. Then attempts would count for the wrong
        one.
        """
        body = urlencode(form).encode()
        changed = (b"content-type", b"content-length", b"transfer-encoding")
        scope["headers"] = [
            *(header for header in scope["headers"] if header[0] not in changed),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"content-length", str(len(body)).encode()),
        ]
        status, sent = 500, False

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
                if 200 <= status < 300 and new_device:
                    cookie = self._devices.cookie(form.get("username", ""))
                    message["headers"] = [*message["headers"], (b"set-cookie", cookie)]
            await send(message)

        await self._app(scope, replay, watch)
        return status

    def _is_foreign(self, headers: Headers) -> bool:
        """Return whether a browser sends this for a page of another site."""
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            return True
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        # The Host is one of this site's names: this was checked before.
        host = headers.get(b"host", b"").decode("latin-1").lower()
        return bool(origin) and origin not in self._origins and origin.partition("//")[2] != host


def is_sign_in(scope: Scope) -> bool:
    """Return whether a request may reach the sign-in, in any spelling of its path."""
    parts = [part for part in re.split(r"[/\s]+", scope["path"]) if part not in ("", ".")]
    return scope["method"] == "POST" and parts == PATH.strip("/").split("/")


async def _form_body(headers: Headers, receive: Receive, send: Send) -> bytes | None:
    """Return the body of a sign-in, or None where it was refused or cut off."""
    too_long = "A name and a password need less space than this."
    if declared_length(headers) > _LARGEST_FORM:
        await refuse(send, 413, too_long)
        return None
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > _LARGEST_FORM:
            await refuse(send, 413, too_long)
            return None
        if not message.get("more_body"):
            return bytes(body)


def form_of(body: bytes, content_type: bytes) -> dict[str, str]:
    """Return a form's name and password; where one is given twice, the last."""
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
