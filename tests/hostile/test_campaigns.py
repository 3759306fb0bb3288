"""Labelling servers that answer nonsense, and campaigns on disk that somebody damaged."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PAIR = {"prompt": "Name a colour", "a": "Red", "b": "A shade of blue"}
#: Status, headers and body of every answer.
ANSWERS = {
    "a page": (200, {"Content-Type": "text/html"}, b"<html>hello</html>"),
    "nothing": (200, {}, b""),
    "null": (200, {"Content-Type": "application/json"}, b"null"),
    "a number": (200, {"Content-Type": "application/json"}, b"5"),
    "a list": (200, {"Content-Type": "application/json"}, b"[]"),
    "an object": (200, {"Content-Type": "application/json"}, b"{}"),
    "a text": (200, {"Content-Type": "application/json"}, b'"hello"'),
    "cut": (200, {"Content-Type": "application/json"}, b'{"items": [{"id": "'),
    "deep": (200, {"Content-Type": "application/json"}, b"[" * 100_000),
    "not UTF-8": (200, {"Content-Type": "application/json"}, b'{"username": "\xff"}'),
    "other types": (
        200,
        {"Content-Type": "application/json"},
        b'{"id": 5, "username": [], "role": null, "items": {"a": 1}, "version": 7}',
    ),
    "items of numbers": (200, {"Content-Type": "application/json"}, b'{"items": [1, 2]}'),
    "control characters": (400, {"Content-Type": "application/json"}, b'{"detail": "\\u001b[2Jx"}'),
    "gzip that is none": (200, {"Content-Encoding": "gzip"}, b"hello"),
    "wrong key": (401, {"Content-Type": "application/json"}, b'{"detail": "no"}'),
    "forbidden": (403, {}, b"no"),
    "not found": (404, {}, b"no"),
    "validation": (422, {"Content-Type": "application/json"}, b'{"detail": [{"loc": 5}]}'),
    "elsewhere": (302, {"Location": "http://169.254.169.254/latest"}, b""),
    "round and round": (302, {"Location": "/api/v1/me"}, b""),
}


@pytest.fixture(scope="module")
def server():
    """A server that gives one answer to everything; set ``server.answer``."""

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            status, headers, body = self.server.answer  # type: ignore[attr-defined]
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = reply  # noqa: N815

        def log_message(self, *arguments) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def site_options(server, tmp_path):
    key = tmp_path / "key"
    key.write_text("owner.apikey\n")
    key.chmod(0o600)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    return ["--home", str(tmp_path), "--server", address, "--api-key-file", str(key),
            "--patience", "1"]  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_answers_nonsense_to_a_push(attempt, server, tmp_path, name):
    server.answer = ANSWERS[name]
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(PAIR)}\n")
    outcome = attempt(
        "annotate", "push", str(file), "--person", "ana", *site_options(server, tmp_path)
    )
    assert outcome.code in (1, 2, 3), outcome


CAMPAIGN = {
    "version": 1, "id": "0123", "server": "http://127.0.0.1:1", "guidelines": "",
    "config": {"name": "mine", "people": ["ana"]},
    "places": {"ana": {"dataset_id": "5", "dataset": "mine-ana", "workspace": "w"}},
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_answers_nonsense_to_a_pull(attempt, server, tmp_path, name):
    server.answer = ANSWERS[name]
    folder = tmp_path / "campaigns/mine"
    folder.mkdir(parents=True)
    (folder / "campaign.json").write_text(json.dumps(CAMPAIGN))
    (folder / "secret").write_text("ab" * 32)
    outcome = attempt(
        "annotate", "pull", "--campaign", "mine", "--all", *site_options(server, tmp_path)
    )
    assert outcome.code in (1, 2, 3), outcome


def changed(**values):
    return json.dumps(CAMPAIGN | values)


DAMAGE = {
    "empty": {"campaign.json": ""},
    "null": {"campaign.json": "null"},
    "list": {"campaign.json": "[]"},
    "cut": {"campaign.json": '{"version": 1, "id'},
    "deep": {"campaign.json": "[" * 100_000},
    "no version": {"campaign.json": "{}"},
    "newer": {"campaign.json": changed(version=99)},
    "only a version": {"campaign.json": '{"version": 1}'},
    "config is a list": {"campaign.json": changed(config=[])},
    "config with more": {"campaign.json": changed(config={"name": "mine", "nothing": 1})},
    "places is a list": {"campaign.json": changed(places=[])},
    "place of a number": {"campaign.json": changed(places={"ana": 5})},
    "place with more": {"campaign.json": changed(places={"ana": {"x": 1}})},
    "items cut": {"items.jsonl": '{"id": "'},
    "items of numbers": {"items.jsonl": "5\n"},
    "items with more": {"items.jsonl": '{"x": 1}\n'},
    "pairs cut": {"pairs.jsonl": "{"},
    "pairs of nulls": {"pairs.jsonl": "null\n"},
    "labels damaged": {"labels.jsonl": "{}\n{\n"},
    "labels of numbers": {"labels.jsonl": "5\n"},
    "people is a list": {"people.json": "[1]"},
    "pulled is cut": {"pulled.json": "{"},
    "secret is short": {"secret": "xyz"},
    "secret is none": {"secret": ""},
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_campaign_that_was_damaged(attempt, server, tmp_path, name):
    server.answer = ANSWERS["forbidden"]
    folder = tmp_path / "campaigns/mine"
    folder.mkdir(parents=True)
    for file, text in ({"campaign.json": json.dumps(CAMPAIGN), "secret": "ab" * 32}
                       | DAMAGE[name]).items():  # fmt: skip
        (folder / file).write_text(text)
    options = site_options(server, tmp_path)
    outcome = attempt("annotate", "pull", "--campaign", "mine", *options)
    assert outcome.code in (1, 2, 3), outcome
    if "campaign.json" in DAMAGE[name]:
        assert "campaign.json" in outcome.said, outcome


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/b", "\0", ".", "a:b", "\u202ex", "x" * 300])
def test_a_campaign_whose_name_is_no_folder(attempt, tmp_path, name):
    file = tmp_path / "pairs.jsonl"
    file.write_text(f"{json.dumps(PAIR)}\n")
    for command in (["push", str(file), "--person", "ana"], ["pull"]):
        outcome = attempt(
            "annotate", *command, "--campaign", name, "--home", str(tmp_path / "home")
        )
        assert outcome.code in (1, 2, 3), outcome
    assert not list(tmp_path.glob("home/campaigns/*"))
