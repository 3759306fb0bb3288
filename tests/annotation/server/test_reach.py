"""A site that others reach: with TLS, behind a proxy, under a name of its own."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection, ServerError
from annotation.server import control
from annotation.server.accounts import Accounts
from annotation.server.embedded.plumbline_site.lockout import ADDRESS, PAIR, Lockout
from annotation.server.embedded.plumbline_site.services import Services
from annotation.server.services import chosen, kind_of_site, write
from annotation.server.site_folder import Reach, Site, changed, connection
from plumbline.commands.annotate.users import unlock
from plumbline.errors import BusyError, ConfigError

NAME = "labels.example.org"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate that nobody but its maker has signed, for a name that leads nowhere."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, which makes the certificate")
    folder = tmp_path_factory.mktemp("tls")

    def make(name):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
        return folder / f"{name}.pem", folder / f"{name}.key"

    return make


@pytest.fixture(scope="module")
def outward(site_in, tmp_path_factory, certificate):
    """A site on all addresses with TLS, behind a proxy on this machine; its maker's environment
    would have it otherwise."""
    cert, key = certificate(NAME)
    home = tmp_path_factory.mktemp("outward") / "site"
    site = site_in(
        home, host="0.0.0.0", tls_certificate=cert, tls_key=key, allow_hosts=(NAME,),
        proxies=("127.0.0.0/31",),
    )  # fmt: skip
    hostile = {
        "ARGILLA_AUTH_SECRET_KEY": "known-to-everybody",
        "ARGILLA_CORS_ORIGINS": '["*"]',
        "ARGILLA_DATABASE_URL": f"sqlite+aiosqlite:///{home.parent}/elsewhere.db",
        "ARGILLA_HOME_PATH": str(home.parent / "elsewhere"),
        "ARGILLA_BASE_URL": "/elsewhere",
        "USERNAME": "argilla",
        "DEFAULT_USER_ENABLED": "true",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PYTHONSTARTUP": "/nowhere",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hostile.items():
            patch.setenv(name, value)
        site.start()
    return site


def _login(site, name, password, sender=None, **headers):
    if sender is not None:
        headers["X-Forwarded-For"] = sender
    with site.client() as client:
        data = {"username": name, "password": password}
        return client.post("/token", data=data, headers=headers)


def test_the_callers_environment_does_not_reach_the_server(outward):
    site = outward
    assert site.site.database.exists()
    assert not list(site.home.parent.glob("elsewhere*"))
    environment = psutil.Process(control.running(site.site).pid).environ()
    assert not [name for name in environment if name.startswith(("ARGILLA", "HTTP", "DEFAULT"))]
    with site.client() as client:
        assert client.get("/me").status_code == 200  # where it should be, not under /elsewhere
        answer = client.get("/me", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_this_machines_commands_trust_the_sites_own_certificate(outward, tmp_path):
    site = outward
    opened = connection(site.home)
    assert opened.url == f"https://127.0.0.1:{site.reach.port}"
    assert Argilla(opened, patience=0).me().name == "owner"
    people = Accounts(opened, tmp_path, page_url=site.reach.page_url)
    name = site.fresh("ana")
    assert f'"site": "https://{NAME}"' in people.add(name).read_text()
    assert name in [person.name for person in people.all()]


def test_no_other_certificate_is_believed(outward, certificate):
    site = outward
    other, _ = certificate("other.example.org")
    for trusted in (other, None):
        wrong = Connection(connection(site.home).url, site.api_key, trusted)
        with pytest.raises(ServerError, match=r"(?i)certificate verify failed"):
            Argilla(wrong, patience=0).me()


def test_a_renewed_certificate_does_not_shut_the_commands_out(outward, certificate):
    """The server shows the one it was started with until it is started again."""
    site = outward
    before = site.reach.tls_certificate.read_bytes()
    renewed, _ = certificate("renewed.example.org")
    site.reach.tls_certificate.write_bytes(renewed.read_bytes())
    try:
        assert Argilla(connection(site.home), patience=0).me().name == "owner"
    finally:
        site.reach.tls_certificate.write_bytes(before)


def test_the_sites_own_name_is_answered_and_bound_to_tls(outward):
    site = outward
    with site.client() as client:
        answer = client.get("/me", headers={"Host": NAME})
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        assert "strict-transport-security" not in client.get("/me").headers
        assert client.get("/me", headers={"Host": f"x.{NAME}"}).status_code == 421


def test_nothing_is_served_without_tls(outward):
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{outward.reach.port}/", trust_env=False)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.TransportError):
        httpx.get(outward.url, verify=old, trust_env=False)


def test_five_wrong_passwords_lock_a_person_at_an_address(outward):
    site = outward
    person = site.person()
    name, password = person["username"], person["password"]
    wrong = [_login(site, name, "wrong-password", "203.0.113.5").status_code for _ in range(PAIR)]
    assert wrong == [401] * PAIR
    locked = _login(site, name, password, "203.0.113.5")
    assert locked.status_code == 429
    assert int(locked.headers["retry-after"]) > 800
    assert "unlock" in locked.json()["detail"]
    # What a sender writes before its own address changes nothing, nor does a port.
    assert _login(site, name, password, "198.51.100.9, 203.0.113.5").status_code == 429
    # From elsewhere the person signs in.
    assert _login(site, name, password, "203.0.113.6").status_code == 201
    # Somebody else does from there.
    other = site.person()
    assert _login(site, other["username"], other["password"], "203.0.113.5").status_code == 201
    # Whoever runs the site lets them in again.
    unlock(name, site.home)
    assert _login(site, name, password, "203.0.113.5").status_code == 201


def test_attempts_at_once_are_counted_one_by_one(outward):
    site = outward
    person = site.person()
    with ThreadPoolExecutor(16) as pool:
        statuses = list(
            pool.map(
                lambda _: _login(site, person["username"], "wrong", "203.0.113.20").status_code,
                range(16),
            )
        )
    assert sorted(statuses) == [401] * PAIR + [429] * 11


def test_an_address_that_tries_many_names_is_locked(outward):
    site = outward
    sender = "203.0.113.30"
    for number in range(ADDRESS - 1):  # as if tried: each real one takes a while
        Lockout(site.site.attempts).begin(f"name-{number}", sender)
    statuses = [_login(site, name, "wrong", sender).status_code for name in ("x", "y")]
    assert statuses == [401, 429]


def test_oversized_logins_are_refused(outward):
    assert _login(outward, "owner", "x" * 20_000, "203.0.113.40").status_code == 413
    assert _login(outward, "owner", "x" * 10_000, "203.0.113.40").status_code == 401


def test_the_owner_is_reset_together_with_the_file_that_opens_the_site(outward, tmp_path):
    site = outward
    before = site.site.owner()
    file = site.site.owner_file
    assert Accounts(connection(site.home), tmp_path, owner_file=file).reset("owner") == file
    after = site.site.owner()
    assert file.stat().st_mode & 0o777 == 0o600
    assert _login(site, "owner", before["password"], "203.0.113.50").status_code == 401
    assert _login(site, "owner", after["password"], "203.0.113.50").status_code == 201
    assert site.request("GET", "/me")["username"] == "owner"  # with the new key
    with site.client(before["api_key"]) as client:
        assert client.get("/me").status_code == 401


def test_settings_are_kept_and_others_refused_while_it_is_up(outward):
    site = outward
    assert site.site.reach() == site.reach
    assert changed(site.site.reach(), {"host": None, "allow_hosts": ()}) == site.reach
    control.up(site.site, site.reach)  # the same again
    with pytest.raises(BusyError, match="other settings"):
        control.up(site.site, changed(site.reach, {"allow_hosts": ("other.example.org",)}))


@pytest.mark.parametrize("swapped", ["key", "certificate"])
def test_tls_that_does_not_fit_is_refused_before_anything_starts(certificate, tmp_path, swapped):
    cert, key = certificate(NAME)
    other_cert, other_key = certificate("other.example.org")
    reach = Reach(
        tls_certificate=other_cert if swapped == "certificate" else cert,
        tls_key=other_key if swapped == "key" else key,
    )
    with pytest.raises(ConfigError, match="TLS does not work"):
        control.up(Site(tmp_path / "site"), reach)
    assert not (tmp_path / "site").exists()


def test_a_key_with_a_password_is_refused(certificate, tmp_path):
    cert, key = certificate(NAME)
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:x", "-in", key, "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="without a password"):
        Reach(tls_certificate=cert, tls_key=locked).check()


@pytest.mark.parametrize(
    ("reach", "local", "page"),
    [
        (Reach(), "http://127.0.0.1:6900", "http://127.0.0.1:6900"),
        (Reach(host="localhost", port=1), "http://127.0.0.1:1", "http://127.0.0.1:1"),
        (Reach(host="::1"), "http://[::1]:6900", "http://[::1]:6900"),
        (Reach(host="::", proxies=("10.0.0.7",)), "http://[::1]:6900", "http://[::1]:6900"),
        (
            Reach(host="0.0.0.0", proxies=("10.0.0.7",), allow_hosts=(NAME,)),
            "http://127.0.0.1:6900",
            f"https://{NAME}",
        ),
        (
            Reach(host="10.0.0.5", allow_hosts=(NAME,)),
            "http://10.0.0.5:6900",
            f"http://{NAME}:6900",
        ),
    ],
)
def test_addresses_for_programs_and_for_people(reach, local, page):
    assert (reach.local_url, reach.page_url) == (local, page)


def test_what_a_site_is_is_said_in_words(tmp_path):
    site, url = Site(tmp_path), "postgresql://plumbline:secret@db/labels"
    assert "SQLite in one process" in kind_of_site(site.home, None)
    write(site, Services(url, "redis://cache", 3))
    assert "PostgreSQL and Redis in 3 processes" in kind_of_site(site.home, None)
    assert "secret" not in kind_of_site(site.home, None)
    assert kind_of_site(site.home, "https://x") == "a server of Argilla at https://x"


@pytest.mark.parametrize("password", ["se#cret", "12#34", "12/34", "12?34", "se%ZZcret", "se%"])
def test_a_password_that_an_address_cannot_hold_is_refused_and_not_shown(password):
    """Else a part of it counts as the host or the database, and is shown with the address."""
    for database, redis in (
        (f"postgresql://u:{password}@h/labels", "redis://h/0"),
        ("postgresql://u@h/labels", f"redis://:{password}@h:6379/0"),
    ):
        with pytest.raises(ConfigError) as refused:
            chosen(None, database, redis, None)
        assert not {"cret", "34", "se"} & set(re.findall(r"\w+", str(refused.value)))
    assert chosen(None, "postgresql://u:12%2334@h/labels?sslmode=require", "redis://h", 2)


def test_a_database_of_redis_has_a_number():
    with pytest.raises(ConfigError, match="those of Redis have numbers"):
        chosen(None, "postgresql://u@h/labels", "redis://h:6379/labels", None)
    with pytest.raises(ConfigError, match="--workers is 0; it may be 1 to 64"):
        chosen(None, None, None, 0)
