"""Watching a run: what the server says, to whom, and when the run cannot be read."""

from __future__ import annotations

import gzip
import http.client
import json
import runpy
import socket
import struct
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from evaluation.comparison.watch import Watch
from plumbline.commands.app import app
from plumbline.errors import ArtifactError, BusyError

maker = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("content_maker.py"))))
SMALL = {"seeds": 1, "checkpoints": 2, "prompts": 4, "steps": 3}


def ask(watch: Watch, path: str, host: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", watch.port, timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def until(condition, seconds: float = 20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
    return found


@pytest.fixture
def running():
    """A watch whose run the test changes, or breaks."""
    state = {"content": maker.content(status="running", **SMALL), "error": None}

    def build():
        if state["error"]:
            raise state["error"]
        return state["content"]

    with Watch(build, every=0.05) as watch:
        yield watch, state


def test_a_reader_gets_the_page_then_only_what_is_new(running):
    watch, state = running
    answer, page = ask(watch, "/")
    assert answer.status == 200
    assert b"connect-src &#39;self&#39;" in page
    assert answer.headers["X-Frame-Options"] == "DENY"
    _, body = ask(watch, "/parts.json?have=")
    parts = json.loads(body)
    assert parts["status"] == "running"
    assert parts["sections"]["verdict"]
    assert "gold-against-kl" in parts["charts"]
    answer, body = ask(watch, f"/parts.json?have={parts['version']}")
    assert (answer.status, body) == (204, b"")
    answer, body = ask(watch, f"/samples.json?version={parts['samples']}")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(body))["prompts"]) == 4

    state["content"] = maker.content(status="finished", **SMALL) | {"verdict": ["At an end."]}
    until(lambda: ask(watch, f"/parts.json?have={parts['version']}")[0].status == 200)
    news = json.loads(ask(watch, "/parts.json")[1])
    assert news["status"] == "finished"
    assert "At an end." in news["sections"]["verdict"]
    assert news["samples"] == parts["samples"]  # they are the same, and not fetched again


def test_other_names_and_other_paths_are_refused(running):
    watch, _ = running
    assert ask(watch, "/", host=f"localhost:{watch.port}")[0].status == 200
    for host in ("evil.example", f"evil.example:{watch.port}", "127.0.0.1"):
        answer, body = ask(watch, "/parts.json", host=host)
        assert (answer.status, body) == (403, b"")
    assert ask(watch, "/../pyproject.toml")[0].status == 404
    assert watch.url.startswith("http://127.0.0.1:")
    with socket.socket() as other, pytest.raises(OSError):
        other.connect(("127.0.0.2", watch.port))


def test_a_run_that_cannot_be_read_is_told_beside_what_was_known(running):
    watch, state = running
    state["error"] = OSError("the file is half written")
    parts = until(lambda: p if (p := json.loads(ask(watch, "/parts.json")[1]))["problem"] else None)
    assert "half written" in parts["problem"]
    assert parts["sections"]["verdict"]
    state["error"] = None
    until(lambda: json.loads(ask(watch, "/parts.json")[1])["problem"] is None)


def test_what_is_wrong_at_first_is_the_callers():
    def build():
        raise ArtifactError("There is no run 'x'.")

    with pytest.raises(ArtifactError):
        Watch(build)


def test_a_port_that_is_taken_is_said(running):
    watch, state = running
    with pytest.raises(BusyError, match=f"{watch.port}.*--port 0"):
        Watch(lambda: state["content"], port=watch.port)


def test_the_command_says_where_the_page_is_and_ends_with_ctrl_c(monkeypatch):
    content = maker.content(**SMALL)
    asked = []
    monkeypatch.setattr(
        "evaluation.comparison.page_content.run_content",
        lambda home, run: asked.append((home, run)) or content,
    )

    def leave(watch):
        asked.append(ask(watch, "/")[0].status)
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "wait", leave)
    result = CliRunner().invoke(app, ["watch", "my-run", "--home", "somewhere", "--no-open"])
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:" in result.output
    assert asked[0] == (Path("somewhere"), "my-run")
    assert asked[-1] == 200


def test_a_run_that_does_not_exist_is_said_in_words(tmp_path):
    result = CliRunner().invoke(app, ["watch", "none", "--home", str(tmp_path), "--no-open"])
    assert isinstance(result.exception, ArtifactError)
    assert "none" in str(result.exception)


def test_a_reader_who_leaves_before_the_answer_is_no_error(running, capsys):
    watch, _ = running
    for _ in range(5):
        leaving = socket.create_connection(("127.0.0.1", watch.port))
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{watch.port}\r\n\r\n".encode())
        leaving.close()  # at once, and not after what is still to come
    assert ask(watch, "/")[0].status == 200
    time.sleep(0.2)
    assert "Traceback" not in capsys.readouterr().err
