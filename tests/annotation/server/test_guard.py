"""What stands between the network and Argilla, without Argilla."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from urllib.parse import parse_qs, urlencode

import pytest
from pydantic import BaseModel, Field

from annotation.server.embedded.plumbline_site import limits
from annotation.server.embedded.plumbline_site.guard import Guard, OnlyFrom, content_security_policy
from annotation.server.embedded.plumbline_site.lockout import Lockout
from annotation.server.embedded.plumbline_site.logs import Discreet


class App:
    """An application that notes what reaches it, and lets in whoever knows "sesame"."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            self.seen.append((scope["type"], b""))
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append((scope["path"], body))
        status = 200
        if scope["method"] == "POST" and "token" in scope["path"]:
            status = 201 if parse_qs(body.decode()).get("password") == ["sesame"] else 401
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"hello"})


def _request(
    app, path="/", method="GET", host="localhost:6900", body=(b"",), client="10.0.0.1", **more
):
    """Send one request; return its status, headers and body."""
    headers = more.pop("headers", {})
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "client": (client, 1234),
        "server": ("10.9.9.9", 6900),
        "headers": [
            *([(b"host", host.encode("latin-1"))] if host is not None else []),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ],
        **more,
    }
    incoming = [
        {"type": "http.request", "body": part, "more_body": number < len(body) - 1}
        for number, part in enumerate(body)
    ]
    sent = []

    async def receive():
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1
    content = b"".join(m["body"] for m in sent if m["type"] == "http.response.body")
    return starts[0]["status"], dict(starts[0]["headers"]), content


@pytest.fixture
def app():
    return App()


@pytest.fixture
def guard(app, tmp_path):
    return Guard(
        app,
        hosts=["localhost", "127.0.0.1", "[::1]", "Labels.Example.org"],
        policy="default-src 'self'",
        lockout=Lockout(tmp_path / "attempts.json"),
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:6900", "LOCALHOST:1", "127.0.0.1:6900", "[::1]:6900", "localhost.",
        "labels.example.org", "labels.example.org:443",
    ],
)  # fmt: skip
def test_own_names_are_answered(guard, host):
    assert _request(guard, host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        None, "", "evil.example", "evil.example:6900", "localhost.evil.example", "localhost:x",
        "localhost@evil.example", "127.0.0.2", "[::2]", "xlabels.example.org", "localhost:6900:1",
        "localhost\\evil", "[::1", "ﬁ".encode().decode("latin-1"),
    ],
)  # fmt: skip
def test_other_names_are_refused_and_reach_nothing(guard, app, host):
    status, headers, body = _request(guard, host=host)
    assert status == 421
    assert "--allow-host" in json.loads(body)["detail"]
    assert headers[b"content-security-policy"]
    assert app.seen == []


@pytest.mark.parametrize("path", ["/", "/api/v1/token", "/nowhere"])
def test_every_answer_has_the_headers(guard, app, path):
    app.headers += [(b"X-Frame-Options", b"ALLOWALL")]  # what is behind does not weaken them
    for method in ("GET", "POST"):
        _, headers, _ = _request(guard, path, method)
        assert headers[b"content-security-policy"] == b"default-src 'self'"
        assert headers[b"x-frame-options"] == b"DENY"
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert headers[b"referrer-policy"] == b"no-referrer"
        assert b"X-Frame-Options" not in headers
        assert b"strict-transport-security" not in headers


@pytest.mark.parametrize(
    ("host", "is_told"), [("labels.example.org", True), ("localhost", False), ("127.0.0.1", False)]
)
def test_only_names_of_the_site_alone_are_bound_to_tls(app, tmp_path, host, is_told):
    lockout = Lockout(tmp_path / "attempts.json")
    hosts = ["localhost", "127.0.0.1", "labels.example.org"]
    guard = Guard(app, hosts=hosts, policy="", lockout=lockout, secure=True)
    assert (b"strict-transport-security" in _request(guard, host=host)[1]) == is_told


def test_websockets_are_refused(guard, app):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(guard({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert app.seen == []


def test_what_is_too_large_is_refused_also_without_a_length(guard, app, monkeypatch):
    monkeypatch.setitem(limits.LARGEST_BODY, None, 100)
    assert _request(guard, method="POST", body=[b"x" * 50, b"x" * 50])[0] == 200
    assert _request(guard, method="POST", headers={"content-length": "101"})[0] == 413
    assert _request(guard, method="POST", body=[b"x" * 50] * 3)[0] == 413
    assert app.seen == [("/", b"x" * 100)]


# The login.


def _login(guard, body, kind="application/x-www-form-urlencoded", **more):
    parts = [body] if isinstance(body, bytes) else body
    headers = {"content-type": kind}
    return _request(guard, "/api/v1/token", "POST", body=parts, headers=headers, **more)


def _form(username="ana", password="wrong"):
    return urlencode({"username": username, "password": password}).encode()


def test_a_right_password_goes_through(guard, app):
    assert _login(guard, _form(password="sesame"))[0] == 201
    assert app.seen == [("/api/v1/token", b"username=ana&password=sesame")]


def test_five_wrong_ones_lock_also_the_right_one(guard, app):
    assert [_login(guard, _form())[0] for _ in range(5)] == [401] * 5
    status, headers, body = _login(guard, _form(password="sesame"))
    assert status == 429
    assert 800 < int(headers[b"retry-after"]) <= 900
    assert "unlock" in json.loads(body)["detail"]
    assert len(app.seen) == 5
    assert _login(guard, _form("ben", "sesame"))[0] == 201
    assert _login(guard, _form(password="sesame"), client="10.0.0.2")[0] == 201


def test_a_success_clears(guard):
    for _ in range(3):
        assert [_login(guard, _form())[0] for _ in range(4)] == [401] * 4
        assert _login(guard, _form(password="sesame"))[0] == 201


def test_attempts_at_once_get_no_further_than_one_after_another(app, tmp_path):
    """Each counts as wrong before it is known to be."""
    lockout = Lockout(tmp_path / "attempts.json")
    waiting = asyncio.Event()

    async def slow(scope, receive, send):
        await waiting.wait()
        await app(scope, receive, send)

    guard = Guard(slow, hosts=["localhost"], policy="", lockout=lockout)

    async def attempt():
        status = []

        async def receive():
            return {"type": "http.request", "body": _form(), "more_body": False}

        async def send(message):
            status.append(message.get("status"))

        scope = {
            "type": "http", "path": "/api/v1/token", "method": "POST", "client": ("10.0.0.1", 1),
            "headers": [(b"host", b"localhost")],
        }  # fmt: skip
        await guard(scope, receive, send)
        return status[0]

    async def all_at_once():
        tasks = [asyncio.create_task(attempt()) for _ in range(20)]
        await asyncio.sleep(0)
        waiting.set()
        return await asyncio.gather(*tasks)

    assert sorted(asyncio.run(all_at_once())) == [401] * 5 + [429] * 15


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/token", "/api/v1/token/", "//api/v1/token", "/api//v1/token", "/api/v1/token\n",
        "/api/v1/./token", "/api/v1/token ",
    ],
)  # fmt: skip
def test_a_login_is_counted_however_its_path_is_spelt(guard, path):
    def attempt():
        return _request(guard, path, "POST", body=[_form()])[0]

    statuses = [attempt() for _ in range(6)]
    assert statuses[-1] == 429


@pytest.mark.parametrize(
    "path", ["/api/v1/tokens", "/api/v1", "/token", "/api/v1/users/token", "/x/api/v1/token"]
)
def test_other_paths_are_no_logins(guard, path):
    assert all(_request(guard, path, "POST", body=[_form()])[0] != 429 for _ in range(6))


def _multipart(**fields):
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "".join([*parts, "--B--\r\n"]).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"username=ben&password=wrong&username=ana", "application/x-www-form-urlencoded"),
        (b"username=%61na&password=wrong", "application/x-www-form-urlencoded"),
        (b"password=wrong&username=ana;x=1&username=ana", "application/x-www-form-urlencoded"),
        (b"username=ana&password=wrong", ""),
        (b"username=ana&password=wrong", "text/plain"),
        (_multipart(username="ana", password="wrong"), "multipart/form-data; boundary=B"),
        (_multipart(username="ana", password="wrong"), 'Multipart/Form-Data; boundary="B"'),
        (
            _multipart(password="wrong") .replace(b"--B--", b"--B") +
            b'content-disposition: form-data; filename="x"; name=username\r\n\r\nana\r\n--B--\r\n',
            "multipart/form-data; boundary=B",
        ),
        ([b"userna", b"me=ana&pass", b"word=wrong"], "application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
def test_the_name_that_is_counted_is_the_one_that_is_checked(guard, app, body, kind):
    """Whatever the form: what is behind gets it as it was read here."""
    for _ in range(5):
        assert _login(guard, body, kind)[0] == 401
    assert app.seen == [("/api/v1/token", app.seen[0][1])] * 5
    assert parse_qs(app.seen[0][1].decode()) == {"username": ["ana"], "password": ["wrong"]}
    assert _login(guard, _form(password="sesame"))[0] == 429


def test_a_form_without_a_name_passes_on_what_it_has(guard, app):
    assert _login(guard, b"password=wrong&x=1")[0] == 401
    assert app.seen == [("/api/v1/token", b"password=wrong")]
    assert _login(guard, b"\xff\xfe\x00", "multipart/form-data; boundary=B")[0] == 401
    assert _login(guard, b"", "multipart/form-data")[0] == 401


def test_signs_in_names_and_passwords_survive(guard, app):
    _login(guard, _form("ä b&c=d;e", "100% +ü\n"))
    assert parse_qs(app.seen[0][1].decode()) == {
        "username": ["ä b&c=d;e"],
        "password": ["100% +ü\n"],
    }


def test_an_oversized_login_is_refused_before_it_is_read(guard, app):
    assert _login(guard, b"x" * 20_000)[0] == 413
    assert _login(guard, [b"x" * 1000] * 20)[0] == 413
    headers = {"content-length": "1000000"}
    assert _request(guard, "/api/v1/token", "POST", headers=headers)[0] == 413
    assert app.seen == []


# The proxy.


@pytest.mark.parametrize(
    ("client", "is_let_in"),
    [
        ("10.0.0.7", True),
        ("10.0.0.8", False),
        ("172.18.3.4", True),
        ("172.19.0.1", False),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.9.9.9", True),  # the address it came to: this machine itself
        ("unix", False),
    ],
)
def test_only_proxies_and_this_machine_are_let_in(app, client, is_let_in):
    only = OnlyFrom(app, ["10.0.0.7", "172.18.0.1/16"])
    status, headers, body = _request(only, client=client)
    assert (status == 200, bool(app.seen)) == (is_let_in, is_let_in)
    if not is_let_in:
        assert status == 403
        assert "proxy" in json.loads(body)["detail"]
        assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize("client", [None, (), ("10.0.0.8", 1)])
def test_nobody_without_an_address_is_let_in(app, client):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "client": client, "headers": []}
    asyncio.run(OnlyFrom(app, ["10.0.0.7"])(scope, None, send))
    assert sent[0]["type"] == "websocket.close"
    assert app.seen == []


# The page's policy and the log.


def test_the_policy_names_inline_scripts_and_nothing_else():
    pages = [
        "<script>one()</script><script src='x.js'></script><script>\ntwo()\n</script>",
        "<script type='module'>one()</script><script></script>",
    ]
    policy = content_security_policy(pages)
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode() + "'"
        for text in (b"one()", b"\ntwo()\n")
    ]
    assert scripts.split() == ["script-src", "'self'", *sorted(hashes)]
    assert "unsafe-eval" not in policy
    for part in policy.split("; "):
        name, *sources = part.split()
        assert not any(source.startswith(("http", "*")) for source in sources), name
    assert "img-src 'self' data: blob:" in policy
    assert "frame-ancestors 'none'" in policy


class Login(BaseModel):
    password: str = Field(min_length=100)


class RequestValidationError(Exception):
    """As FastAPI's: its text holds what was sent."""

    def errors(self):
        return [{"type": "string_too_short", "loc": ("body", "password"), "input": "sesame"}]

    def __str__(self):
        return str(self.errors())


def _logged(error, message=None):
    record = logging.LogRecord("argilla", 40, "f.py", 1, message or error, (), None)
    try:
        raise error
    except Exception as raised:
        record.exc_info = (type(raised), raised, raised.__traceback__)
    return Discreet().format(record)


def test_the_log_does_not_quote_what_was_refused():
    line = _logged(RequestValidationError())
    assert "sesame" not in line
    assert "body.password: string_too_short" in line
    assert "Traceback" not in line  # who asked was told why

    secret = "".join(["ses", "ame"])  # a traceback shows the line, too
    try:
        Login(password=secret)
    except ValueError as error:
        told = _logged(error)
        assert "sesame" not in told
        assert "password: string_too_short" in told
        assert "Traceback" in told
        outer = RuntimeError("while answering")
        outer.__cause__ = error
        told = _logged(outer, "Exception in ASGI application")
        assert "sesame" not in told
        assert "while answering" in told
        assert "password: string_too_short" in told


def test_the_log_tells_other_errors_whole():
    told = _logged(ValueError("the disk is full"))
    assert "ERROR argilla the disk is full" in told
    assert "Traceback" in told
