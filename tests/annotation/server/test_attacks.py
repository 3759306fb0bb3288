"""Attacks by people who have not signed in: what each costs, and whom it shuts out."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from contextlib import suppress
from urllib.parse import urlencode

import httpx
import psutil
import pytest

from annotation.server import control
from annotation.server.embedded.plumbline_site import limits
from annotation.server.embedded.plumbline_site.guard import Guard
from annotation.server.embedded.plumbline_site.lockout import DEVICE, PERSON, Lockout
from annotation.server.environment import python

HOST = "labels.example.org"
ORIGIN = f"https://{HOST}"


class App:
    """Stands for Argilla: reads the whole body, and signs in with the password "sesame"."""

    def __init__(self):
        self.requests = []

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.requests.append((scope["path"], dict(scope["headers"]), body))
        status = 200
        if scope["path"] == "/api/v1/token":
            status = 201 if b"password=sesame" in body else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def app():
    return App()


@pytest.fixture
def guard(app, tmp_path):
    async def role_of(headers):
        return headers.get(b"x-role", b"").decode() or None

    return Guard(
        app,
        hosts=[HOST],
        policy="default-src 'self'",
        lockout=Lockout(tmp_path / "attempts.json"),
        secret=b"of this site",
        origins=[ORIGIN],
        role_of=role_of,
        secure=True,
    )


def _request(guard, path="/", method="GET", headers=(), body=b"", client="10.0.0.1", parts=None):
    """Send a request; return its status and the headers of the reply."""
    incoming = list(parts or [body])
    sent = []

    async def receive():
        part = incoming.pop(0) if incoming else None
        if part is None:
            await asyncio.sleep(60)  # a sender that says nothing more
        return {"type": "http.request", "body": part, "more_body": bool(incoming)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "path": path, "method": method, "client": (client, 1), "query_string": b"",
        "headers": [(b"host", HOST.encode()), *headers],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, "one reply, also where a request is refused half-way"
    return starts[0]["status"], dict(starts[0]["headers"])


def _sign_in(guard, password="wrong", user="ana", headers=(), client="10.0.0.1"):
    body = urlencode({"username": user, "password": password}).encode()
    return _request(guard, "/api/v1/token", "POST", headers, body, client)


# Sizes, numbers and time.


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("@evil.example", (), 400),
        ("", (), 400),
        ("/a\0b", (), 400),
        ("/" + "a/" * limits.LONGEST_PATH, (), 414),
        ("/" + "x" * (limits.LONGEST_NAME + 1), (), 414),
        ("/", [(b"x", b"y" * limits.LARGEST_HEADERS)], 431),
        ("/", [(b"x%d" % n, b"y") for n in range(limits.MOST_HEADERS)], 431),
    ],
)
def test_an_oversized_head_is_refused_before_anything_reads_it(guard, app, path, headers, status):
    assert _request(guard, path, headers=headers)[0] == status
    assert app.requests == []


def test_a_long_query_is_refused(guard, app):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "path": "/", "method": "GET", "client": ("10.0.0.1", 1),
        "query_string": b"q=" + b"x" * limits.LONGEST_ADDRESS,
        "headers": [(b"host", HOST.encode())],
    }  # fmt: skip
    asyncio.run(guard(scope, None, send))
    assert sent[0]["status"] == 414
    assert app.requests == []


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        (b"bytes=0-99", True),
        (b"bytes=-5", True),
        (b"bytes=0-1,2-3", False),
        (b"bytes=" + b"0-," * 10_000 + b"1-", False),
        (b"bytes=" + b"9" * 100 + b"-", False),
    ],
)
def test_only_single_ranges_reach_the_files(guard, app, value, passes):
    assert _request(guard, "/x.js", headers=[(b"range", value)])[0] in (200, 431)
    assert all((b"range" in headers) == passes for _, headers, _ in app.requests)


@pytest.mark.parametrize(
    ("role", "limit"), [(b"", 64 * 1024), (b"unknown", 64 * 1024), (b"annotator", 1024 * 1024)]
)
@pytest.mark.parametrize("declares", [True, False])
def test_the_size_of_a_body_depends_on_who_sends_it(guard, app, role, limit, declares):
    def post(size):
        headers = [(b"x-role", role)]
        if declares:
            headers += [(b"content-length", str(size).encode())]
        parts = [b"x" * (size // 2), b"x" * (size - size // 2)]
        return _request(guard, "/api/v1/datasets", "POST", headers, parts=parts)[0]

    assert post(limit) == 200
    assert post(limit + 1) == 413
    assert len(app.requests) == 1


def test_an_owner_may_send_500_records_at_once(guard):
    headers = [(b"x-role", b"owner"), (b"content-length", b"200000000")]
    assert _request(guard, "/api/v1/datasets", "POST", headers, b"{}")[0] == 200


def test_a_body_that_stops_half_way_is_ended(guard, app, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)
    began = time.monotonic()
    status, headers = _request(guard, "/api/v1/datasets", "POST", parts=[b"{", None])
    assert status == 408
    assert headers[b"connection"] == b"close"
    assert time.monotonic() - began < 5
    assert app.requests == []


@pytest.mark.parametrize(
    "path",
    [
        "/share-your-progress",
        "//share-your-progress",
        "/api/v1/oauth2/providers",
        "/api/v1//oauth2",
    ],
)
def test_parts_of_argilla_that_nobody_needs_are_closed(guard, app, path):
    assert _request(guard, path)[0] == 404
    assert app.requests == []


# Who is shut out.


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"https://evil.example")],
        [(b"origin", b"null")],
        [(b"origin", b"http://labels.example.org.evil.example")],
        [(b"sec-fetch-site", b"cross-site")],
        [(b"sec-fetch-site", b"same-site"), (b"origin", ORIGIN.encode())],
    ],
)
def test_a_page_of_another_site_cannot_lock_its_visitor(guard, app, headers):
    for _ in range(40):
        assert _sign_in(guard, headers=headers)[0] == 403
    assert app.requests == []
    assert _sign_in(guard, "sesame")[0] == 201


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"origin", ORIGIN.encode()), (b"sec-fetch-site", b"same-origin")],
        [(b"origin", b"https://Labels.Example.org")],
        [(b"sec-fetch-site", b"none")],
    ],
)
def test_the_sites_own_page_and_programs_sign_in(guard, headers):
    assert _sign_in(guard, "sesame", headers=headers)[0] == 201


def _cookie(reply_headers):
    value, *flags = reply_headers[b"set-cookie"].decode().split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/api/v1/token"} <= set(flags)
    return value


def _device(guard, user="ana"):
    """Sign in once on a device; return the header that it sends from then on."""
    status, headers = _sign_in(guard, "sesame", user, client="10.0.0.9")
    assert status == 201
    return (b"cookie", _cookie(headers).encode())


def test_a_guesser_at_ones_own_address_does_not_shut_one_out(guard):
    device = _device(guard)
    assert [_sign_in(guard)[0] for _ in range(6)] == [401] * 5 + [429]
    assert _sign_in(guard, "sesame")[0] == 429
    status, headers = _sign_in(guard, "sesame", headers=[device])
    assert status == 201
    assert b"set-cookie" not in headers


def test_guessers_at_many_addresses_do_not_shut_out_a_known_device(guard):
    device = _device(guard)
    for number in range(PERSON):
        assert _sign_in(guard, client=f"10.1.{number}.1")[0] == 401
    assert _sign_in(guard, "sesame", client="10.0.0.3")[0] == 429
    assert _sign_in(guard, "sesame", headers=[device])[0] == 201


def test_the_owner_gets_in_at_the_machine_itself(guard):
    for number in range(PERSON + 5):
        _sign_in(guard, user="owner", client=f"10.1.{number}.1")
    assert _sign_in(guard, "sesame", "owner", client="10.0.0.3")[0] == 429
    assert _sign_in(guard, "sesame", "owner", client="127.0.0.1")[0] == 201


def test_a_device_gets_no_endless_guesses(guard):
    device = _device(guard)
    statuses = [_sign_in(guard, headers=[device])[0] for _ in range(DEVICE + 1)]
    assert statuses == [401] * DEVICE + [429]


def test_a_cookie_helps_its_own_person_alone(guard, tmp_path, app):
    of_ben = _device(guard, "ben")
    name, _, value = of_ben[1].partition(b"=")
    of_ana = _device(guard)[1].partition(b"=")[0]
    elsewhere = Guard(
        app, hosts=[HOST], policy="", lockout=Lockout(tmp_path / "other.json"), secret=b"another",
        secure=True,
    )  # fmt: skip
    forged = [
        of_ben,
        (b"cookie", of_ana + b"=" + value),
        (b"cookie", of_ana + b"=" + b"0" * 32 + b"." + b"0" * 64),
        (b"cookie", of_ana + b"="),
        _device(elsewhere),
    ]
    statuses = [_sign_in(guard, headers=[forged[n % len(forged)]])[0] for n in range(6)]
    assert statuses == [401] * 5 + [429]
    assert name != of_ana


# The running site.


def _largest_page_file(site):
    """Return the address of the largest file that anybody may load."""
    from pathlib import Path

    static = next(Path(python()).parents[1].glob("lib/python*/site-packages/argilla_server/static"))
    largest = max(static.rglob("*.js"), key=lambda file: file.stat().st_size)
    return f"{site.url}/{largest.relative_to(static)}"


def test_the_worst_request_of_a_stranger_costs_little(argilla_site, record_property):
    """Each is sent by eight at once: how long the slowest takes, and how much memory is used."""
    site = argilla_site
    process = psutil.Process(control.running(site.site).pid)
    deep = b"[" * 32_000 + b"]" * 32_000
    script = _largest_page_file(site)
    requests = {
        "the largest file": ("GET", script, {"headers": {"accept-encoding": "br"}}),
        "ranges": ("GET", script, {"headers": {"range": "bytes=" + ",".join(["0-"] * 9000)}}),
        "a deep body": ("POST", f"{site.url}/api/v1/datasets", {"content": deep}),
        "a large body": ("POST", f"{site.url}/api/v1/datasets", {"content": b"x" * 50_000_000}),
        "a form": ("POST", f"{site.url}/api/v1/token", {"data": {"username": "x" * 10_000}}),
        "many parts": ("GET", f"{site.url}/{'a/' * 1000}", {}),
        "a key": ("GET", f"{site.url}/api/v1/me", {"headers": {"x-argilla-api-key": "k" * 9000}}),
        "a token": ("GET", f"{site.url}/api/v1/me", {"headers": {"authorization": "Bearer a.b.c"}}),
    }
    measured = {}
    for name, (method, url, more) in requests.items():
        with suppress(httpx.TransportError):  # what the server loads at its first use stays
            httpx.request(method, url, trust_env=False, timeout=30, **more)
        before = process.memory_info().rss
        seconds, statuses = [], []

        def send(method=method, url=url, more=more, seconds=seconds, statuses=statuses):
            began = time.monotonic()
            try:
                reply = httpx.request(method, url, trust_env=False, timeout=30, **more)
                statuses.append(reply.status_code)
            except httpx.TransportError:
                statuses.append(0)  # refused before it was sent to its end
            seconds.append(time.monotonic() - began)

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = process.memory_info().rss - before
        measured[name] = (max(seconds), grown / 1e6)
        assert not any(status >= 500 for status in statuses), (name, statuses)
    record_property("worst", json.dumps(measured))
    print(json.dumps(measured, indent=1))
    for name, (slowest, megabytes) in measured.items():
        assert slowest < 10, name
        assert megabytes < 100, name
    assert site.request("GET", "/me")["username"] == "owner"


@pytest.mark.parametrize(
    "path",
    [
        "/" + "a/" * 1000, "/" + "x" * 300, "/" + "x" * 255, "/%00", "/a%00b.js",
        "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cx", "/%ff%fe",
        "/api/v1/" + "a/" * 900, "//evil.example/",
        "/api/v1/datasets/" + "9" * 200, "/%0d%0aset-cookie:x=y", "/_nuxt/", "/_nuxt/..%2f..%2f",
    ],
)  # fmt: skip
def test_no_address_makes_an_error_of_the_server(argilla_site, path):
    with socket.create_connection(("127.0.0.1", argilla_site.reach.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        reply = b""
        while part := connection.recv(65536):
            reply += part
    status = int(reply.split(b" ", 2)[1])
    assert 200 <= status < 500, reply[:300]
    assert b"root:" not in reply
    assert b"\r\nset-cookie" not in reply.split(b"\r\n\r\n")[0].lower()


def unfinished_heads(address, count):
    """Open connections whose request has no end."""
    opened = [socket.create_connection(address) for _ in range(count)]
    for connection in opened:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
    return opened


def is_ended(connection):
    connection.settimeout(0.01)
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_heads_that_never_end_hold_nobody_up(argilla_site):
    slow = unfinished_heads(("127.0.0.1", argilla_site.reach.port), 20)
    try:
        began = time.monotonic()
        assert argilla_site.request("GET", "/me")["username"] == "owner"
        assert time.monotonic() - began < 5
        assert not any(is_ended(connection) for connection in slow)
    finally:
        for connection in slow:
            connection.close()


_HEADS = """
import sys, uvicorn
from plumbline_site import connections
from plumbline_site.__main__ import _uvicorn_settings

assert 10 <= connections.HEAD_SECONDS <= 30
connections.HEAD_SECONDS = 0.5
site = {"host": "127.0.0.1", "port": int(sys.argv[1]), "proxies": [], "tls_certificate": None,
        "tls_key": None}

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})

uvicorn.Server(_uvicorn_settings(site, app)).run()
"""


def test_a_head_that_never_ends_is_ended():
    """By the site's own way to serve, with a shorter limit."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    command = [python(), "-c", _HEADS, str(address[1])]
    slow: list[socket.socket] = []
    with subprocess.Popen(command, env={"PYTHONPATH": str(control.EMBEDDED)}) as server:
        try:
            began = time.monotonic()
            while not slow:
                assert server.poll() is None and time.monotonic() - began < 60
                with suppress(ConnectionError):
                    slow = unfinished_heads(address, 10)
                time.sleep(0.02)
            slow += [socket.create_connection(address) for _ in range(10)]  # that say nothing
            while not all(is_ended(connection) for connection in slow):
                assert time.monotonic() - began < 60
                time.sleep(0.02)
        finally:
            server.kill()
            for connection in slow:
                connection.close()


_CONNECTIONS = """
import asyncio, uvicorn
from plumbline_site import connections
from uvicorn.server import ServerState

class Transport:
    def __init__(self, address):
        self.address, self.aborted = address, False
    def get_extra_info(self, name, default=None):
        return {"peername": (self.address, 1), "sockname": ("10.0.0.1", 80)}.get(name, default)
    def abort(self):
        self.aborted = True
    def is_closing(self):
        return self.aborted
    def close(self):
        pass

async def app(scope, receive, send):
    pass

async def main():
    config = uvicorn.Config(app)
    config.load()
    kind = connections.limited(["172.18.0.0/16"])
    def connect(address):
        protocol = kind(config=config, server_state=ServerState(), app_state={})
        transport = Transport(address)
        protocol.connection_made(transport)
        return protocol, transport
    most = connections.MOST_PER_ADDRESS
    held = [connect("10.0.0.5") for _ in range(most)]
    assert not any(transport.aborted for _, transport in held)
    assert connect("10.0.0.5")[1].aborted, "one too many"
    assert not connect("10.0.0.6")[1].aborted, "another address"
    for address in ("127.0.0.1", "172.18.0.9"):
        assert not any(connect(address)[1].aborted for _ in range(most + 1)), address
    for protocol, _ in held[:5]:
        protocol.connection_lost(None)
    assert not connect("10.0.0.5")[1].aborted, "after some have ended"
    print("fine")

asyncio.run(main())
"""


def test_one_address_cannot_take_all_connections():
    environment = {"PYTHONPATH": str(control.EMBEDDED)}
    result = subprocess.run(
        [python(), "-c", _CONNECTIONS], env=environment, capture_output=True, text=True, check=False
    )
    assert result.stdout == "fine\n", result.stderr


def test_a_text_has_a_longest_length(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    dataset = site.dataset(workspace, questions={"why": {"type": "text", "use_markdown": False}})
    (person,) = site.crowd(workspace, 1)
    long, longer = site.texts(dataset, "one", "two")
    assert site.submit(person, long, why="x" * 20_000).status_code == 201
    refused = site.submit(person, longer, why="x" * 20_001)
    assert refused.status_code == 422
    assert "20,000 characters" in refused.text
