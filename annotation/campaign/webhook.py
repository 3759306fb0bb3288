"""A listener that the server calls when somebody has answered.

A call only ends the waiting: the answers themselves are then read from the server. So a lost call
costs a little time, and a forged one does nothing (its signature is checked anyway). Calls are
signed as https://www.standardwebhooks.com specifies.
"""

from __future__ import annotations

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from annotation.argilla.api import Argilla, Webhook
from annotation.argilla.client import ServerError
from plumbline.errors import ConfigError
from plumbline.proxies import is_loopback

EVENTS = ("response.created", "response.updated")
_LARGEST_CALL = 32 << 20
_DESCRIPTION = "Plumbline waits for labels of campaign"


class Listener:
    """Listens on a port of this machine, and is registered at the server, while the block runs."""

    def __init__(
        self, site: Argilla, campaign_id: str, *, port: int = 0, address: str | None = None
    ) -> None:
        """Prepare to listen.

        ``address`` is the address at which a server on another machine reaches this port.
        """
        if address is None and not is_loopback(site.url):
            raise ConfigError(
                f"The labelling server {site.url} is on another machine and cannot reach this "
                "machine's loopback address. Give an address that it can reach with --webhook-url, "
                "or leave the webhook out: then the server is asked every few seconds."
            )
        self._site, self._description = site, f"{_DESCRIPTION} {campaign_id}"
        self._port, self._address = port, address
        self._called = threading.Event()
        self._secret: str | None = None
        self._webhook: Webhook | None = None
        self._path = f"/{secrets.token_urlsafe(16)}"
        self.refused = 0
        """How many calls had a wrong path or signature, or were too old."""

    def __enter__(self) -> Self:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if 0 < length <= _LARGEST_CALL else b""
                status = listener._receive(self.path, body, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Write nothing: the terminal shows progress."""

        host = "127.0.0.1" if self._address is None else "0.0.0.0"
        self._server = ThreadingHTTPServer((host, self._port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        try:
            self._register()
        except BaseException:
            self._stop_listening()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._webhook is not None:
                # Not for long: if the server is down now, the next listener removes the webhook.
                self._site.request("DELETE", f"/webhooks/{self._webhook.id}", patience=2.0)
        except ServerError:
            pass  # a webhook too many does no harm
        finally:
            self._stop_listening()

    def wait(self, seconds: float) -> bool:
        """Return whether the server called within so many seconds; return as soon as it does."""
        called = self._called.wait(seconds)
        self._called.clear()
        return called

    def _register(self) -> None:
        base = (self._address or f"http://127.0.0.1:{self._server.server_port}").rstrip("/")
        for webhook in self._site.webhooks():
            if webhook.description == self._description:  # of a listener that was killed
                self._site.remove_webhook(webhook.id)
        self._webhook = self._site.add_webhook(base + self._path, EVENTS, self._description)
        self._secret = self._webhook.secret

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _receive(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Return the HTTP status of the reply to a call."""
        if self._secret is None:
            return 503  # the server has registered this listener, but its reply is on its way
        if not secrets.compare_digest(path.encode(), self._path.encode()):
            self.refused += 1
            return 404
        if not is_signed(self._secret, body, headers):
            self.refused += 1
            return 401
        self._called.set()
        return 204


def is_signed(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """Return whether a call is signed with the secret, and at most five minutes old."""
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    try:
        Webhook(secret).verify(body, headers)
    except (WebhookVerificationError, ValueError):
        return False
    return True
