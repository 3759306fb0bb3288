"""The HTTP server: POST /score and /check, GET /health and /metrics."""

from __future__ import annotations

import hmac
import json
import math
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from plumbline.data.records import problem_with as problem_with_conversation
from plumbline.data.records import user
from plumbline.errors import ConfigError, PlumblineError
from plumbline.hooks import Scorer, problem_with
from plumbline.proxies import is_loopback
from reward.scorers.cached import CachedScorer
from reward.server.batcher import Batcher, ClosedError, FullError, Request
from reward.server.statistics import ServerStatistics

_LARGEST_BODY = 64 << 20
_MOST_ROWS = 10_000
#: A client that sends nothing for so long is hung up on.
_SILENCE = 120.0


class RefusedError(Exception):
    """A request that gets another status than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RewardServer:
    """Serves a scorer over HTTP.

    ``content`` is the hash of all that its scores depend on: clients send it with each request,
    and one that expects another model gets status 409 and no score. ``token``: what clients must
    send as ``Authorization: Bearer``; an address that other machines reach needs one.
    """

    def __init__(
        self,
        scorer: Scorer,
        content: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        cache: bool = True,
        most_rows: int = 256,
        wait: float = 0.005,
    ) -> None:
        if not is_loopback(host) and not token:
            raise ConfigError(
                f"The server would answer anybody who reaches {host}. Give clients a token by "
                "PLUMBLINE_REWARD_TOKEN, or serve on 127.0.0.1."
            )
        self.content, self.token = content, token
        self.scorer = CachedScorer(scorer, content) if cache else scorer
        self.statistics = ServerStatistics()
        self.batcher = Batcher(self.scorer, self.statistics, most_rows=most_rows, wait=wait)
        handler = type("Handler", (_Handler,), {"server_state": self})
        try:
            self._http = _Server((host, port), handler)
        except OSError as error:
            self.batcher.close()
            raise ConfigError(
                f"The server cannot listen on {host}:{port} ({error.strerror}). Give a free port, "
                "or --port 0 for any."
            ) from None
        self.url = f"http://{host}:{self._http.server_port}"

    def serve_forever(self) -> None:
        """Answer until `close` or Ctrl-C."""
        self._http.serve_forever(poll_interval=0.2)

    def start(self) -> RewardServer:
        """Answer in a thread of its own; return the server."""
        threading.Thread(target=self.serve_forever, daemon=True, name="http").start()
        return self

    def close(self) -> None:
        """Stop listening, and finish what waits."""
        self._http.shutdown()
        self._http.server_close()
        self.batcher.close()

    def score(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to a request to score; raise `RefusedError`."""
        self._check_content(body)
        request = _request_in(body)
        try:
            scores = self.batcher.submit(request).result()
        except FullError:
            raise RefusedError(503, "too many responses wait; ask again later") from None
        except ClosedError:
            raise RefusedError(503, "the server is stopping") from None
        except PlumblineError as error:
            raise RefusedError(422, str(error)) from None
        except Exception as error:
            raise RefusedError(500, f"{type(error).__name__}: {error}") from None
        bad = [number for number, score in enumerate(scores, 1) if not math.isfinite(score)]
        if bad:
            raise RefusedError(
                422,
                f"the scorer gives no finite score to {len(bad)} of {len(scores)} responses, the "
                f"first of them number {bad[0]}",
            )
        return {"scores": scores, "content": self.content}

    def check(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return why no response to a prompt can be scored, or null."""
        self._check_content(body)
        prompt = body.get("prompt")
        problem = problem_with_conversation(prompt)
        if problem is not None:
            raise RefusedError(400, f"'prompt' {problem}")
        return {"problem": problem_with(self.scorer, prompt), "content": self.content}  # type: ignore[arg-type]

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return status and body of the reply to /health."""
        alive = self.batcher.is_alive
        return (200 if alive else 500), {
            "status": "ok" if alive else "the scoring thread has ended",
            "name": self.scorer.name,
            "content": self.content,
            "waiting": self.batcher.waiting,
            "uptime_seconds": round(time.time() - self.statistics.started, 3),
        }

    def metrics(self) -> str:
        """Return the body of the reply to /metrics."""
        cached = self.scorer if isinstance(self.scorer, CachedScorer) else None
        counts = None if cached is None else (cached.hits, cached.misses)
        return self.statistics.as_text(self.batcher.waiting, counts)

    def _check_content(self, body: Mapping[str, Any]) -> None:
        wanted = body.get("content")
        if wanted is not None and wanted != self.content:
            raise RefusedError(409, f"this server scores by {self.content}, not by {wanted}")


def warm_up(scorer: Scorer) -> None:
    """Score something, so that a model is loaded, or refused, before anybody asks.

    Nothing is scored where no response to this prompt can be.
    """
    prompt = [user("Hello")]
    if problem_with(scorer, prompt) is None:
        scorer.score([prompt], ["Hello"])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # many clients may start at once


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    timeout = _SILENCE
    disable_nagle_algorithm = True
    server_state: ClassVar[RewardServer]

    def do_GET(self) -> None:
        state = self.server_state
        if self.path == "/health":
            status, body = state.health()
            self._reply(status, body)
        elif not self._may():
            self._reply(401, {"error": "a token is needed: Authorization: Bearer …"})
        elif self.path == "/metrics":
            self._send(200, state.metrics().encode(), "text/plain; version=0.0.4")
        else:
            self._reply(404, {"error": f"there is no {self.path}"})

    def do_POST(self) -> None:
        began, state = time.perf_counter(), self.server_state
        answers = {"/score": state.score, "/check": state.check}
        try:
            body = self._body()
            if not self._may():
                raise RefusedError(401, "a token is needed: Authorization: Bearer …")
            if self.path not in answers:
                raise RefusedError(404, f"there is no {self.path}")
            status, reply = 200, answers[self.path](body)
        except RefusedError as error:
            status, reply = error.status, {"error": str(error), "content": state.content}
        if self.path == "/score":
            state.statistics.add_request(status, time.perf_counter() - began)
        self._reply(status, reply)

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing per request: /metrics counts them."""

    def _may(self) -> bool:
        token = self.server_state.token
        if not token:
            return True
        sent = self.headers.get("authorization", "")
        return hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())

    def _body(self) -> Mapping[str, Any]:
        length = self.headers.get("content-length", "")
        if not length.isdigit():
            self.close_connection = True
            raise RefusedError(411, "the request has no content-length")
        if int(length) > _LARGEST_BODY:
            self.close_connection = True
            raise RefusedError(413, f"the body has more than {_LARGEST_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise RefusedError(400, f"the body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise RefusedError(400, "the body is not a JSON object")
        return body

    def _reply(self, status: int, body: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client is gone
            self.close_connection = True


def _request_in(body: Mapping[str, Any]) -> Request:
    """Return the request of a body; raise `RefusedError` with what is wrong in it."""
    prompts, responses = body.get("prompts"), body.get("responses")
    if not isinstance(prompts, list) or not isinstance(responses, list):
        raise RefusedError(400, "the body needs the lists 'prompts' and 'responses'")
    if len(prompts) != len(responses):
        raise RefusedError(400, f"{len(prompts)} prompts came with {len(responses)} responses")
    if len(responses) > _MOST_ROWS:
        raise RefusedError(413, f"a request may have {_MOST_ROWS} responses, not {len(responses)}")
    for number, (prompt, response) in enumerate(zip(prompts, responses, strict=True), 1):
        problem = problem_with_conversation(prompt)
        if problem is not None:
            raise RefusedError(400, f"prompt {number} {problem}")
        if not isinstance(response, str):
            raise RefusedError(400, f"response {number} is not a text")
    return Request(prompts, responses)
