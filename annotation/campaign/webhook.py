"""A listener that the server calls when somebody has answered.

A call only wakes up whoever waits: what was answered is then asked of the server itself. So a
call that is lost costs a little time, and one that is forged (its signature is checked all the
same) nothing. Calls are signed as https://www.standardwebhooks.com says.
"""

from __future__ import annotations

import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from annotation.campaign.argilla import Argilla, Hook
from annotation.campaign.client import ServerError, is_loopback
from plumbline.errors import ConfigError

EVENTS = ("response.created", "response.updated")
_LARGEST_CALL = 32 << 20
_DESCRIPTION = "Plumbline waits for labels of campaign"


class Listener:
    """Listens on a port of this machine while the block runs, and is known to the server then."""

    def __init__(
        self, site: Argilla, campaign_id: str, *, port: int = 0, address: str | None = None
    ) -> None:
        """Prepare to listen.

        ``address`` is where the server reaches this port, for a server on another machine.
        """
        if address is None and not is_loopback(site.url):
            raise ConfigError(
                f"The labelling server {site.url} is on another machine, which cannot reach this "
                "one's loopback address. Say with --webhook-url where it can, or leave the "
                "webhook out: then the server is asked every few seconds."
            )
        self._site, self._description = site, f"{_DESCRIPTION} {campaign_id}"
        self._port, self._address = port, address
        self._called = threading.Event()
        self._secret: str | None = None
        self._hook: Hook | None = None
        self._path = f"/{secrets.token_urlsafe(16)}"
        self.refused = 0
        """Calls with a wrong path or signature, or too old."""

    def __enter__(self) -> Self:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if 0 < length <= _LARGEST_CALL else b""
                status = listener._hear(self.path, body, dict(self.headers.items()))
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Keep the terminal for people."""

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
            if self._hook is not None:
                # Briefly: a server that is down now finds the hook removed by the next listener.
                self._site.ask("DELETE", f"/webhooks/{self._hook.id}", patience=2.0)
        except ServerError:
            pass  # what was waited for is not undone by a hook too many
        finally:
            self._stop_listening()

    def wait(self, seconds: float) -> bool:
        """Return as soon as the server has called, or after so many seconds; say which it was."""
        called = self._called.wait(seconds)
        self._called.clear()
        return called

    def _register(self) -> None:
        base = (self._address or f"http://127.0.0.1:{self._server.server_port}").rstrip("/")
        for hook in self._site.hooks():
            if hook.description == self._description:  # of a listener that was killed
                self._site.remove_hook(hook.id)
        self._hook = self._site.add_hook(base + self._path, EVENTS, self._description)
        self._secret = self._hook.secret

    def _stop_listening(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _hear(self, path: str, body: bytes, headers: dict[str, str]) -> int:
        """Return the status that a call is answered with."""
        if self._secret is None:
            return 503  # it is known to the server, but the answer that says so is on its way
        if not secrets.compare_digest(path.encode(), self._path.encode()):
            self.refused += 1
            return 404
        if not is_signed(self._secret, body, headers):
            self.refused += 1
            return 401
        self._called.set()
        return 204


def is_signed(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    """Tell whether a call is signed with the secret, and not more than five minutes old."""
    from standardwebhooks.webhooks import Webhook, WebhookVerificationError

    try:
        Webhook(secret).verify(body, headers)
    except (WebhookVerificationError, ValueError):
        return False
    return True
