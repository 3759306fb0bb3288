"""The page of a comparison while its run is in progress, served to this machine only.

One thread reads the run and renders the page; requests get the last snapshot, so readers cost the
run nothing. Reading uses at most a twentieth of one core: the longer a snapshot takes, the longer
the wait until the next.
"""

from __future__ import annotations

import contextlib
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
from evaluation.comparison.page.packed_responses import compressed
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
class Snapshot:
    """The state of the run at one moment, ready to be sent."""

    version: str
    status: str
    page: bytes
    parts: bytes
    samples: bytes
    """Gzipped JSON."""


class Watch(AbstractContextManager["Watch"]):
    """Serves the page of one run until it is closed.

    ``build`` makes the content of the run. What it raises at first goes to the caller; what it
    raises later is shown to the reader beside the last state.
    """

    def __init__(
        self,
        build: Build,
        *,
        port: int = 0,
        every: float = _EVERY,
        training: Callable[[], str] | None = None,
    ) -> None:
        """Serve the page that ``build`` makes the content of, and at ``/training`` another one."""
        self._build = build
        self.training = training
        self._every = every
        self._closing = threading.Event()
        self._samples: tuple[str, bytes] = ("", b"")
        self._content, self.snapshot = self._see(build(), None)
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), _handler(self))
        except OSError as error:
            raise BusyError(
                f"The page cannot be served at {ADDRESS}:{port}: {error.strerror}. "
                "Give another port, or --port 0 for any free one."
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
        """Wait until the watch is closed; Ctrl-C interrupts the wait."""
        while not self._closing.wait(0.5):
            pass

    def close(self) -> None:
        """Stop serving and reading."""
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
            problem = None
            content = self._content
            try:
                content = self._build()
            except Exception as error:  # a file may be half written; the next try may succeed
                when = f"{datetime.now():%H:%M:%S}"
                problem = f"The run could not be read at {when}: {error}"
            self._content, self.snapshot = self._see(content, problem)
            taken = time.monotonic() - started
            pause = min(_AT_MOST, max(self._every, taken / _SHARE))

    def _see(
        self, content: Mapping[str, Any], problem: str | None
    ) -> tuple[Mapping[str, Any], Snapshot]:
        parts, text = live_parts(content)
        digest = _digest(text)
        if digest != self._samples[0]:
            self._samples = (digest, compressed(text))
        parts |= {"samples": digest, "problem": problem}
        version = _digest(json.dumps(parts, sort_keys=True).encode("utf-8"))
        last: Snapshot | None = getattr(self, "snapshot", None)
        if last is not None and last.version == version:
            return content, last
        body = json.dumps(parts | {"version": version}, allow_nan=False).encode("utf-8")
        curves = "training" if self.training is not None else ""
        page = live_page(content, curves=curves).encode("utf-8", "replace")
        return content, Snapshot(version, str(parts["status"]), page, body, self._samples[1])


def _handler(watch: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with the last snapshot, to pages of this machine only."""

        types: ClassVar = {"page": "text/html; charset=utf-8", "json": "application/json"}

        def do_GET(self) -> None:
            # A page of another site whose name was made to resolve to here sends its own name.
            if self.headers.get("Host") not in {
                f"{name}:{watch.port}" for name in (ADDRESS, "localhost")
            }:
                self._send(HTTPStatus.FORBIDDEN, b"", "page")
                return
            url = urlsplit(self.path)
            snapshot = watch.snapshot
            if url.path == "/":
                self._send(HTTPStatus.OK, snapshot.page, "page")
            elif url.path == "/parts.json":
                if parse_qs(url.query).get("have") == [snapshot.version]:
                    self._send(HTTPStatus.NO_CONTENT, b"", "json")
                else:
                    self._send(HTTPStatus.OK, snapshot.parts, "json")
            elif url.path == "/training" and watch.training is not None:
                body = watch.training().encode("utf-8", "replace")
                self._send(HTTPStatus.OK, body, "page")
            elif url.path == "/samples.json":
                self._send(HTTPStatus.OK, snapshot.samples, "json", {"Content-Encoding": "gzip"})
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
            with contextlib.suppress(ConnectionError):  # the reader has closed the page
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep the terminal quiet."""

    return Handler


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
