"""Attacks on the running site, each by itself."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
import sqlite3
import stat
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from annotation.server import control
from annotation.server.accounts import Accounts
from annotation.server.backup import backup
from annotation.server.embedded.plumbline_site.lockout import Lockout
from annotation.server.site_folder import Reach, Site, connection
from plumbline.errors import ConfigError


def _get(site, path, **more):
    return httpx.get(f"{site.url}{path}", trust_env=False, timeout=30, verify=False, **more)


@pytest.fixture(autouse=True, scope="module")
def _nobody_is_shut_out(argilla_site):
    """Forgive the site's address what these tests tried at it: others sign in from there."""
    yield
    Lockout(argilla_site.site.attempts).forget("nobody")


def test_argillas_default_owner_is_not_there(argilla_site):
    assert argilla_site.sign_in("argilla", "1234").status_code == 401
    for key in ("argilla.apikey", "owner.apikey", "admin.apikey", ""):
        assert (
            _get(argilla_site, "/api/v1/me", headers={"X-Argilla-Api-Key": key}).status_code == 401
        )
    names = {user["username"] for user in argilla_site.request("GET", "/users")["items"]}
    assert "argilla" not in names


def test_the_owners_credentials_are_random_and_work(argilla_site, tmp_path):
    other = Site(tmp_path / "other")
    other.prepare()
    one, two = argilla_site.site.owner(), other.owner()
    assert one["username"] == two["username"]
    assert one["password"] != two["password"]
    assert one["api_key"] != two["api_key"]
    # 24 of 32 letters are 120 bits; 60 bytes of a key are 480.
    assert re.fullmatch(r"([a-z2-9]{6}-){3}[a-z2-9]{6}", one["password"])
    assert len(one["api_key"]) == 80
    assert argilla_site.sign_in(one["username"], one["password"]).status_code == 201
    before = other.owner_file.read_bytes()
    other.prepare()
    assert other.owner_file.read_bytes() == before


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (Reach(host="0.0.0.0"), "without encryption"),
        (Reach(host="::"), "without encryption"),
        (Reach(host="192.168.1.5"), "without encryption"),
        (Reach(host="labels.example.org"), "without encryption"),
        (Reach(host=""), "without encryption"),
        (Reach(host="0.0.0.0", allow_hosts=("labels.example.org",)), "without encryption"),
        (Reach(host="0.0.0.0", proxies=("0.0.0.0/0",)), "every address"),
        (Reach(host="0.0.0.0", proxies=("::/0",)), "every address"),
        (Reach(host="0.0.0.0", proxies=("proxy.example.org",)), "10.0.0.7"),
        (Reach(tls_certificate=Path("/nowhere/cert.pem")), "both"),
        (Reach(tls_certificate=Path("/nowhere/c.pem"), tls_key=Path("/nowhere/k.pem")), "no file"),
        (Reach(tls_certificate=Path(__file__), tls_key=Path(__file__)), "PEM"),
        (Reach(allow_hosts=("*",)), "--allow-host"),
        (Reach(allow_hosts=("https://labels.example.org",)), "without https"),
        (Reach(allow_hosts=("labels.example.org:443",)), "without a port"),
        (Reach(port=0), "--port"),
        (Reach(port=65536), "--port"),
    ],
)
def test_what_would_be_unsafe_is_refused_before_anything_starts(reach, words, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(words)):
        control.up(Site(tmp_path / "site"), reach)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    "reach",
    [
        Reach(),
        Reach(host="localhost"),
        Reach(host="127.0.0.9"),
        Reach(host="::1"),
        Reach(host="0.0.0.0", proxies=("10.0.0.7", "172.18.0.0/16")),
        Reach(allow_hosts=("labels.example.org", "labels", "10.0.0.7")),
    ],
)
def test_what_is_safe_is_not(reach):
    reach.check()


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost", "null"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_pages_from_elsewhere_may_not_read_answers(argilla_site, origin, method):
    with argilla_site.client() as client:
        answer = client.request(
            method,
            "/me",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "X-Argilla-Api-Key",
            },
        )
    # Without this one a browser hands nothing over, whatever the others say.
    assert "access-control-allow-origin" not in answer.headers
    if method == "OPTIONS":
        assert answer.status_code == 400


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "localhost.evil.example"])
def test_a_name_that_was_made_to_point_here_is_refused(argilla_site, host):
    name = host.format(port=argilla_site.reach.port)
    for path in ("/", "/api/v1/me", "/api/v1/token"):
        with argilla_site.client() as client:
            client.headers["Host"] = name
            answer = client.get(f"{argilla_site.url}{path}")
        assert answer.status_code == 421
        assert argilla_site.site.owner()["username"] not in answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 307), ("/label", 200), ("/label/main.js", 200), ("/label/nowhere", 404),
        ("/?argilla", 200), ("/sign-in", 200), ("/api/v1/me", 401), ("/api/v1/nowhere", 404),
        ("/api/v1/labelling/queues", 401),
    ],
)  # fmt: skip
def test_every_answer_is_guarded(argilla_site, path, status):
    answer = _get(argilla_site, path)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' data: blob:;" in policy
    assert "default-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "uvicorn" not in answer.headers.get("server", "")


@contextmanager
def _failing_database(site, word):
    """Let the database refuse users whose name begins so, with an error that quotes the row."""
    if site.services is not None:
        pytest.skip("the trigger is one of SQLite")
    with contextlib.closing(sqlite3.connect(site.site.database, timeout=30)) as database:
        database.execute(
            f"CREATE TRIGGER failing BEFORE INSERT ON users WHEN new.username LIKE '{word}%' "
            "BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
        )
        database.commit()
        try:
            yield
        finally:
            database.execute("DROP TRIGGER failing")
            database.commit()


def test_errors_of_the_server_are_guarded_and_tell_no_values(argilla_site):
    name = argilla_site.fresh("failing")
    body = {"username": name, "first_name": "x", "password": "not-to-be-told"}
    with _failing_database(argilla_site, name), argilla_site.client() as client:
        answer = client.post("/users", json=body)
    assert answer.status_code == 500
    assert "refused by a test" in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert "$2b$" not in answer.text  # the hash


def test_the_pages_own_scripts_are_allowed_by_their_hashes(argilla_site):
    answer = _get(argilla_site, "/?argilla")
    scripts = re.findall(r"<script(?![^>]*\ssrc=)[^>]*>(.+?)</script>", answer.text, re.DOTALL)
    assert scripts
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/../secrets/owner.json", "/..%2f..%2fsecrets/owner.json", "/%2e%2e/%2e%2e/site.json",
        "/_nuxt/../../../../secrets/owner.json", "/....//....//site.json", "/%5c..%5csite.json",
        "//etc/passwd", "/api/v1/../../secrets/owner.json", "/..%00/site.json", "/tmp/../site.json",
        "/label/../__main__.py", "/label/%2e%2e/__main__.py", "/label/..%2f__main__.py",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_page(argilla_site, path):
    # By hand: a client would tidy the path up.
    address = ("127.0.0.1", argilla_site.reach.port)
    with socket.create_connection(address, timeout=30) as connection_:
        connection_.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := connection_.recv(65536):
            answer += part
    assert b"api_key" not in answer
    assert argilla_site.site.owner()["password"].encode() not in answer
    assert b"root:" not in answer
    assert b'"reach"' not in answer


@pytest.mark.parametrize("path", ["docs", "docs/oauth2-redirect", "redoc", "openapi.json"])
def test_the_apis_documentation_is_closed(argilla_site, path):
    assert _get(argilla_site, f"/api/v1/{path}").status_code == 404
    assert "swagger" not in _get(argilla_site, f"/{path}").text.lower()
    assert '"openapi"' not in _get(argilla_site, f"/{path}").text


@pytest.mark.parametrize(
    ("action", "body"),
    [
        (
            "import",
            {
                "name": "a/b",
                "subset": "default",
                "split": "train",
                "mapping": {"fields": [{"source": "x", "target": "text"}]},
            },
        ),
        (
            "export",
            {"name": "a/b", "subset": "d", "split": "train", "private": True, "token": "t0k"},
        ),
    ],
)
def test_the_hub_is_refused_with_the_reason_and_a_way(argilla_site, action, body):
    dataset = argilla_site.dataset(argilla_site.workspace())
    argilla_site.texts(dataset, "x")
    with argilla_site.client() as client:
        answer = client.post(f"/datasets/{dataset}/{action}", json=body)
    assert answer.status_code == 422
    assert "without the hub" in answer.json()["detail"]
    assert "annotate pull" in answer.json()["detail"]


# Tokens.


def _part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _claims(token) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def _signed(claims, key, name="HS256", method="sha256"):
    head = f"{_part({'alg': name, 'typ': 'JWT'})}.{_part(claims)}"
    digest = hmac.new(key, head.encode(), method).digest()
    return f"{head}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _who(site, token):
    return _get(site, "/api/v1/me", headers={"Authorization": f"Bearer {token}"})


def test_forged_tokens_open_nothing(argilla_site):
    site = argilla_site
    owner = site.site.owner()
    token = site.sign_in(owner["username"], owner["password"]).json()["access_token"]
    assert _who(site, token).json()["username"] == owner["username"]
    claims = _claims(token)
    key = (site.site.secrets / "session.key").read_bytes().strip()
    assert _who(site, _signed(claims, key)).status_code == 200  # the forger below lacks the key
    head, _, signature = token.split(".")
    without = {name: value for name, value in claims.items() if name != "access"}
    forged = {
        "of no algorithm": f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims)}.",
        "signed with nothing": _signed(claims, b""),
        "signed with a guess": _signed(claims, b"secret"),
        "by another algorithm": _signed(claims, key, "HS512", "sha512"),
        "for another user": ".".join([head, _part({**claims, "username": "x"}), signature]),
        "expired": _signed({**claims, "exp": int(time.time()) - 10}, key),
        "bound to no password": _signed(without, key),
        "bound to another password": _signed({**claims, "access": "0" * 64}, key),
        "of nobody": _signed({**claims, "username": None}, key),
        "next to nothing": ".",
        "no token": "x.y.z",
    }
    for kind, made in forged.items():
        answer = _who(site, made)
        assert answer.status_code in (401, 403), kind
        assert "username" not in answer.text, kind


def test_a_token_says_nothing_that_helps_to_guess_the_password(argilla_site):
    person = argilla_site.person()
    token = argilla_site.sign_in(person["username"], person["password"]).json()["access_token"]
    shown = json.dumps(_claims(token))
    assert person["api_key"] not in shown
    assert "$2b$" not in shown
    # Bound to a secret of the site: no hash that could be tried at home.
    assert hashlib.sha256(person["password"].encode()).hexdigest() not in shown


def test_sessions_and_keys_end_with_a_reset_at_once(argilla_site, tmp_path):
    site = argilla_site
    people = Accounts(connection(site.home), tmp_path)
    person = site.person()
    token = site.sign_in(person["username"], person["password"]).json()["access_token"]
    site.request("PATCH", f"/users/{person['id']}", json={"first_name": "Ana"})
    assert _who(site, token).status_code == 200  # no reason to sign in again
    people.reset(person["username"])
    assert _who(site, token).status_code == 401
    headers = {"X-Argilla-Api-Key": person["api_key"]}
    assert _get(site, "/api/v1/me", headers=headers).status_code == 401
    assert site.sign_in(person["username"], person["password"]).status_code == 401


def test_signing_out_ends_a_session_on_the_server_and_no_other(argilla_site):
    site = argilla_site
    person = site.person()
    first, second = (
        site.sign_in(person["username"], person["password"]).json()["access_token"]
        for _ in range(2)
    )
    assert first != second
    with site.client(token=first) as client:
        assert client.post("/sign-out").status_code == 204
        assert client.post("/sign-out").status_code == 401
    # The last letter of a signature has bits that mean nothing: another spelling of the same token.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelt = first[:-1] + letters[letters.index(first[-1]) ^ 1]
    assert _who(site, first).status_code == _who(site, spelt).status_code == 401
    assert _who(site, second).status_code == 200
    site.stop()
    site.start()
    assert _who(site, first).status_code == 401
    assert _who(site, second).status_code == 200


def test_signing_out_with_a_key_changes_nothing(argilla_site):
    with argilla_site.client() as client:
        assert client.post("/sign-out").status_code == 204
        assert client.get("/me").status_code == 200
        assert client.post("/sign-out", headers={"X-Argilla-Api-Key": ""}).status_code == 401


def test_sessions_end_with_the_account_also_for_a_namesake(argilla_site, tmp_path):
    site = argilla_site
    people = Accounts(connection(site.home), tmp_path)
    person = site.person()
    name, password = person["username"], person["password"]
    token = site.sign_in(name, password).json()["access_token"]
    people.remove(name, delete_labels=True)
    assert _who(site, token).status_code == 401
    people.add(name, password=password)
    assert site.sign_in(name, password).status_code == 201
    assert _who(site, token).status_code == 401


# What lies on the disk.


def _modes(folder):
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
        if not path.is_relative_to(folder / "tmp")
    }


def test_nobody_else_on_this_machine_reads_anything(argilla_site, tmp_path):
    site = argilla_site
    Accounts(connection(site.home), site.site.credentials).add(site.fresh("ana"))
    site.sign_in("nobody", "wrong-password")  # writes the attempts
    made = backup(site.site, tmp_path / "copies" / "site.tar.gz")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert stat.S_IMODE(site.home.stat().st_mode) == 0o700
    for name in ("secrets", "credentials", "tmp", "argilla"):
        assert stat.S_IMODE((site.home / name).stat().st_mode) == 0o700, name
    modes = _modes(site.home)
    for needed in ("secrets/owner.json", "secrets/session.key", "secrets/attempts.json",
                   "argilla/argilla.db", "server.log", "site.json", "running.json"):  # fmt: skip
        assert needed in modes
    for name, mode in modes.items():
        assert mode & 0o077 == 0, f"{name} is {mode:o}"


def test_secrets_are_where_they_belong_and_nowhere_else(argilla_site, tmp_path):
    site = argilla_site
    people = Accounts(connection(site.home), site.site.credentials)
    owner = site.site.owner()
    person = site.person()
    name = site.fresh("ana")
    file = people.add(name)
    handed = json.loads(file.read_text())["password"]
    site.sign_in(name, handed)
    site.sign_in(name, "wrong-and-typed")
    short = "sh0rt!!"
    body = {"username": site.fresh("x"), "first_name": "x", "password": short}
    with site.client() as client:  # errors of every kind, for the log
        client.post("/users", json=body)
        with _failing_database(site, body["username"]):
            client.post("/users", json={**body, "password": "unsaved-password"})
    with site.client() as client:  # an answer with 500 closes its connection
        client.post("/users", content=b"{" + owner["api_key"].encode())
        client.post("/token", data={"password": handed})
        client.post("/token", data={"username": [name], "password": handed, "x": short})
        client.post("/me", headers={"Authorization": f"Bearer {owner['api_key']}"})
        client.get("/me", headers={"X-Argilla-Api-Key": owner["api_key"] + "x"})
        client.get(f"/users/{owner['api_key']}")
    secrets = {
        "the owner's password": owner["password"],
        "the owner's key": owner["api_key"],
        "a labeller's key": person["api_key"],
        "a labeller's password": handed,
        "a wrong password": "wrong-and-typed",
        "a refused password": short,
        "an unsaved password": "unsaved-password",
        "the secret of sessions": (site.site.secrets / "session.key").read_text().strip(),
        "hashes": "$2b$",
    }
    log = site.site.log.read_text()
    assert "RequestValidationError" in log  # the errors did come about
    assert "IntegrityError" in log
    places = [path for path in site.home.iterdir() if path.is_file()]
    assert {"site.json", "running.json", "server.log"} <= {path.name for path in places}
    for kind, secret in secrets.items():
        for path in places:
            assert secret not in path.read_text(errors="replace"), f"{kind} in {path.name}"
    opened = connection(site.home)
    shown = repr((opened, people, site.site, site.reach)) + str(opened)
    for kind, secret in secrets.items():
        assert secret not in shown, kind
