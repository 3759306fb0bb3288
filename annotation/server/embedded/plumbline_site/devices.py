"""Cookies that remember on which devices a person has signed in.

Wrong passwords are counted by address. Somebody who guesses at another's name from the same address
would lock that person out, too. So a device on which the person has once signed in has a count of
its own, which nobody else can use up (as OWASP describes "device cookies").
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from .asgi import Headers

LIFETIME_SECONDS = 365 * 24 * 3600
_VALUE = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{64}")


class Devices:
    """Issues and recognises the cookies."""

    def __init__(self, secret: bytes, *, secure: bool) -> None:
        self._secret, self._secure = secret, secure

    def recognize(self, user: str, headers: Headers) -> str | None:
        """Return the device's number where it has a cookie of this person's, or None."""
        name = self._name(user)
        for part in headers.get(b"cookie", b"").decode("latin-1").split(";"):
            key, _, value = part.strip().partition("=")
            if key != name or not _VALUE.fullmatch(value):
                continue
            number, _, signature = value.partition(".")
            if hmac.compare_digest(signature, self._signature(user, number)):
                return number
        return None

    def cookie(self, user: str) -> bytes:
        """Return the header that gives this device a cookie of this person's."""
        number = secrets.token_hex(16)
        value = f"{self._name(user)}={number}.{self._signature(user, number)}"
        flags = f"Max-Age={LIFETIME_SECONDS}; Path=/api/v1/token; HttpOnly; SameSite=Strict"
        return f"{value}; {flags}{'; Secure' if self._secure else ''}".encode()

    def _name(self, user: str) -> str:
        return f"plumbline-device-{hashlib.sha256(user.encode()).hexdigest()[:16]}"

    def _signature(self, user: str, number: str) -> str:
        text = f"device\x1f{user}\x1f{number}".encode()
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()
