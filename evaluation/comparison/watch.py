"""A comparison's page while its run goes on, served to this machine alone.

One thread looks at the run and renders; requests are answered from what it found last, so a
reader costs the run nothing. Looking takes at most a twentieth of one core: the longer a look
takes, the longer the wait until the next.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, urlsplit

from evaluation.comparison.page import live_page, live_parts
from evaluation.comparison.page.samples import compressed
from plumbline.errors import BusyError

ADDRESS = "127.0.0.1"
Build = Callable[[], Mapping[str, Any]]

_EVERY = 2.0
_AT_MOST = 60.0
_SHARE = 0.05
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class Look:
    """What one look at the run found, ready to be sent."""

    version: str
    status: str
    page: bytes
    parts: bytes
    samples: bytes
    """Gzipped JSON."""


class Watch(AbstractContextManager["Watch"]):
    """Serves the page of one run until it is closed.

    ``build`` makes the run's content; what it raises at first goes to the caller, what it raises
    later is told to the reader, beside what was last known.
    """

    def __init__(self, build: Build, *, port: int = 0, every: float = _EVERY) -> None:
        self._build = build
        self._every = every
        self._closing = threading.Event()
        self._samples: tuple[str, bytes] = ("", b"")
        self._content, self.look = self._see(build(), None)
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), _handler(self))
        except OSError as error:
            raise BusyError(
                f"The page cannot be served at {ADDRESS}:{port}: {error.strerror}. "
                "Name another port, or --port 0 for any that is free."
            ) from None
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._server.serve_forever, self._follow)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """The port at which the page is served."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return f"http://{ADDRESS}:{self.port}/"

    def wait(self) -> None:
        """Wait until the watch is closed; Ctrl-C interrupts."""
        while not self._closing.wait(0.5):
            pass

    def close(self) -> None:
        """End serving and looking."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(timeout=10)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def _follow(self) -> None:
        pause = self._every
        while not self._closing.wait(pause):
            started = time.monotonic()
            trouble = None
            content = self._content
            try:
                content = self._build()
            except Exception as error:  # a file may be half written; the next look may succeed
                when = f"{datetime.now():%H:%M:%S}"
                trouble = f"The run could not be read at {when}: {error}"
            self._content, self.look = self._see(content, trouble)
            taken = time.monotonic() - started
            pause = min(_AT_MOST, max(self._every, taken / _SHARE))

    def _see(
        self, content: Mapping[str, Any], trouble: str | None
    ) -> tuple[Mapping[str, Any], Look]:
        parts, text = live_parts(content)
        digest = _digest(text)
        if digest != self._samples[0]:
            self._samples = (digest, compressed(text))
        parts |= {"samples": digest, "trouble": trouble}
        version = _digest(json.dumps(parts, sort_keys=True).encode("utf-8"))
        known: Look | None = getattr(self, "look", None)
        if known is not None and known.version == version:
            return content, known
        body = json.dumps(parts | {"version": version}, allow_nan=False).encode("utf-8")
        page = live_page(content).encode("utf-8", "replace")
        return content, Look(version, str(parts["status"]), page, body, self._samples[1])


def _handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with what was last seen, to pages of this machine only."""

        types: ClassVar = {"page": "text/html; charset=utf-8", "json": "application/json"}

        def do_GET(self) -> None:
            # A page from elsewhere whose name was made to point here sends its own name.
            if self.headers.get("Host") not in {
                f"{name}:{watch.port}" for name in (ADDRESS, "localhost")
            }:
                self._send(HTTPStatus.FORBIDDEN, b"", "page")
                return
            asked = urlsplit(self.path)
            look = watch.look
            if asked.path == "/":
                self._send(HTTPStatus.OK, look.page, "page")
            elif asked.path == "/parts.json":
                if parse_qs(asked.query).get("have") == [look.version]:
                    self._send(HTTPStatus.NO_CONTENT, b"", "json")
                else:
                    self._send(HTTPStatus.OK, look.parts, "json")
            elif asked.path == "/samples.json":
                self._send(HTTPStatus.OK, look.samples, "json", {"Content-Encoding": "gzip"})
            else:
                self._send(HTTPStatus.NOT_FOUND, b"", "page")

        def _send(
            self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None
        ) -> None:
            self.send_response(status)
            headers = {"Content-Type": self.types[kind], **_HEADERS, **(more or {})}
            if status is not HTTPStatus.NO_CONTENT:
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep the terminal quiet."""

    return Handler


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
