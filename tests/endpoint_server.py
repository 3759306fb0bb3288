"""A server of our own that speaks the chat completions protocol, and fails as real ones do."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: A reply after whose first half the server cuts the connection.
CUT = "cut"


def completion(content, *, finish="stop", refusal=None, usage=(100, 10)):
    """Return the body of a chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "served",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": 0},
    }


def told_to_wait(status):
    """A failure after which one may ask again at once."""
    return status, {"error": {"message": "later"}}, {"retry-after-ms": "1"}


class EndpointServer:
    """An endpoint on this machine; ``reply`` makes (status, body[, headers]) or `CUT`."""

    def __init__(self, reply, about=lambda payload: payload["messages"][-1]["content"]):
        """``about`` says what a request is about, to count the answers to each."""
        self.reply = reply
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.answered: Counter = Counter()
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    assert self.path == "/v1/chat/completions"
                    outer.requests.append(payload)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    made = outer.reply(payload)
                    cut = made == CUT
                    status, body, *more = completion("half a text") if cut else made
                    if status == 200 and not cut:
                        outer.answered[about(payload)] += 1
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)
                if cut:
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self):
        self.http.shutdown()
        self.http.server_close()
