"""A site for a larger team: several server processes, PostgreSQL, Redis with a worker."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from annotation.argilla.labeler_client import LabelerClient
from annotation.server import control
from annotation.server.backup import backup, restore
from annotation.server.embedded.plumbline_site.services import (
    Services,
    problem_with_version,
    without_password,
)
from annotation.server.environment import EMBEDDED, python
from annotation.server.services import chosen, described
from annotation.server.site_folder import Reach, Site
from plumbline.commands.annotate import server
from plumbline.errors import BusyError, ConfigError, PlumblineError
from tests.database_servers import IN_ADDRESS, PASSWORD, is_listened_to, query

DOCS = Path(__file__).resolve().parents[3] / "docs"


def _children(site):
    return psutil.Process(control.running(site.site).pid).children()


def _servers(site):
    """The processes that serve: those that listen."""
    return [
        process
        for process in _children(site)
        if any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))
    ]


def _processes_of(site):
    settings = str(site.site.settings_file)
    return [
        p.pid for p in psutil.process_iter(["cmdline"]) if settings in (p.info["cmdline"] or ())
    ]


def _wait(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def _stored(site, dataset):
    """All answers as the server has them: choices by record and person."""
    page = site.request(
        "GET", f"/datasets/{dataset}/records", params={"limit": 1000, "include": "responses"}
    )["items"]
    answers = [
        ((record["id"], response["user_id"]), response["values"]["better"]["value"])
        for record in page
        for response in record["responses"]
    ]
    return page, answers


@pytest.fixture(scope="module")
def story(team_site, database_servers):
    """People answer while a server process, Redis and PostgreSQL are killed, one after another."""
    site = team_site
    workspace = site.workspace()
    dataset = site.dataset(workspace, overlap=2)
    people = site.crowd(workspace, 3)
    records = site.texts(dataset, *(f"heron {n}" for n in range(120)))
    acknowledged, failures = {}, []
    done = threading.Event()

    def label(number, person):
        try:
            client = LabelerClient.sign_in(
                site.url, person["username"], person["password"], patience=60
            )
            for turn, record in enumerate(records):
                if done.is_set():
                    return
                choice = "ab"[(turn + number) % 2]
                client.submit(record, {"better": choice})
                acknowledged[record, person["id"]] = choice
        except BaseException as error:
            failures.append(error)

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(label, *each) for each in enumerate(people)]

        def after_some(number=6):
            target = len(acknowledged) + number
            _wait(lambda: len(acknowledged) >= target or failures)

        after_some()
        first = _servers(site)
        first[0].kill()
        after_some()
        database_servers.kill_redis()
        # As if the queue had held a change of the overlap, which a killed Redis forgets.
        wrong = "UPDATE records SET status = 'completed' WHERE status = 'pending' RETURNING 1"
        assert query(site.services.database, wrong)
        after_some()
        database_servers.start_redis()
        after_some()
        database_servers.kill_postgresql()
        time.sleep(0.3)
        database_servers.start_postgresql()
        after_some()
        first[1].kill()
        after_some()
        done.set()
        for one in work:
            one.result()
    assert not failures, failures
    _wait(lambda: len(_servers(site)) == 2)
    return site, dataset, acknowledged, first


def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice(story):
    site, dataset, acknowledged, first = story
    _, answers = _stored(site, dataset)
    assert len(answers) == len(dict(answers))
    there = dict(answers)
    assert acknowledged
    assert {key: there.get(key) for key in acknowledged} == acknowledged
    assert not {process.pid for process in first} & {process.pid for process in _servers(site)}


def test_statuses_are_right_again_after_redis_forgot_a_job(story):
    site, dataset, *_ = story

    def wrong():
        return [
            record["id"]
            for record in _stored(site, dataset)[0]
            if record["status"] != ("completed" if len(record["responses"]) >= 2 else "pending")
        ]

    _wait(lambda: not wrong())


class Listener:
    """A program that webhooks are sent to."""

    def __init__(self):
        self.heard = heard = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def of(self, record):
        return [one for one in self.heard if one["data"]["record"]["id"] == record]


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_events_go_through_the_queue_whichever_process_has_them(story, listener, database_servers):
    site = story[0]
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    records = site.texts(site.dataset(workspace), *"abcdefgh")
    done = f"rq:finished:{site.services.queue(site.home)}"
    before = int(database_servers.ask_redis("ZCARD", done))
    hook = {
        "url": f"http://127.0.0.1:{listener.server.server_port}/",
        "events": ["response.created"],
        "description": "a test",
    }
    made = site.request("POST", "/webhooks", json=hook)
    with ThreadPoolExecutor(4) as pool:  # one of the two processes made the webhook
        list(pool.map(lambda record: site.submit(person, record, better="a"), records))
    _wait(lambda: all(len(listener.of(record)) == 1 for record in records))
    _wait(lambda: int(database_servers.ask_redis("ZCARD", done)) >= before + len(records))
    site.request("DELETE", f"/webhooks/{made['id']}")


def test_five_wrong_passwords_over_all_processes(story):
    site = story[0]
    person = site.person()
    with ThreadPoolExecutor(8) as pool:
        tried = list(pool.map(lambda _: site.sign_in(person["username"], "wrong"), range(20)))
    assert sorted(one.status_code for one in tried) == [401] * 5 + [429] * 15
    assert site.sign_in(person["username"], person["password"]).status_code == 429


def test_who_signs_out_is_out_everywhere(story):
    site = story[0]
    person = site.person()
    token = site.sign_in(person["username"], person["password"]).json()["access_token"]

    def asked(_):
        with site.client(token=token) as client:
            return client.get("/me").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(asked, range(12))) == {200}
        with site.client(token=token) as client:
            assert client.post("/sign-out").status_code == 204
        assert set(pool.map(asked, range(12))) == {401}


def test_an_answer_is_an_activity_of_its_dataset(story):
    site = story[0]
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    dataset = site.dataset(workspace)
    (record,) = site.texts(dataset, "heron")
    old = f"UPDATE datasets SET last_activity_at = '2020-01-01' WHERE id = '{dataset}' RETURNING 1"
    assert query(site.services.database, old).startswith("1")
    assert site.submit(person, record, better="a").status_code == 201
    assert site.request("GET", f"/datasets/{dataset}")["last_activity_at"] > "2026"


def test_both_processes_serve(story):
    site = story[0]
    clients = [site.client() for _ in range(24)]
    try:
        with ThreadPoolExecutor(24) as pool:
            assert {r.status_code for r in pool.map(lambda c: c.get("/me"), clients)} == {200}
        held = [
            sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))
            for process in _servers(site)
        ]
        assert len(held) == 2
        assert all(held)
    finally:
        for client in clients:
            client.close()


def test_connections_are_counted_over_processes():
    script = """
import os
from plumbline_site.connections import HeldByAll
held = HeldByAll(3)
for number in range(3):
    if not os.fork():
        held.take(number)
        held.add("10.0.0.1", 5)
        held.add("10.0.0.1", -2)
        held.add(f"10.0.1.{number}", 1)
        os._exit(0)
    os.wait()
print(held.of("10.0.0.1"), held.of("10.0.1.2"), held.of("10.9.9.9"), held.total())
held.take(1)
print(held.of("10.0.0.1"), held.of("10.0.1.1"), held.total())
"""
    said = subprocess.run(
        [python(), "-c", script],
        env={"PYTHONPATH": str(EMBEDDED)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.split() == ["9", "1", "0", "12", "6", "0", "8"]


@pytest.fixture(scope="module")
def library(story):
    """Records of all kinds, on the database that was killed."""
    site = story[0]
    workspace = site.workspace()
    dataset = site.dataset(
        workspace,
        fields={"text": "text", "talk": "chat"},
        properties=[
            {"name": "topic", "settings": {"type": "terms"}},
            {"name": "length", "settings": {"type": "integer"}},
        ],
    )
    talk = [{"role": "user", "content": "A naïve question"}]
    items = [
        {
            "fields": {"text": "Well-known rivers of Zürich"},
            "metadata": {"topic": "b", "length": 9},
        },
        {"fields": {"text": "a river"}, "metadata": {"topic": ["a", "c"], "length": 10}},
        {"fields": {"text": "3.5 cats\0and \\u0000", "talk": talk}, "metadata": {"topic": "B"}},
        {"fields": {"text": "今日は晴れです"}, "metadata": {"length": -2}},
    ]
    return site, dataset, [record["id"] for record in site.push(dataset, items)]


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("river", [1]),
        ("RIVER*", [0, 1]),
        ("zurich", [0]),
        ('"well known"', [0]),
        ('"known well"', []),
        ("well-known -river", [0]),
        ("river|cats", [1, 2]),
        ("3.5", [2]),
        ("naive", [2]),
        ("user", []),
        ("晴れ", [3]),
        ("'; DROP TABLE records --", []),
        (" ".join(f"w{n}" for n in range(200)), []),
    ],
)
def test_searches_by_words(library, query, places):
    site, dataset, ids = library
    assert site.found(dataset, query) == [ids[place] for place in places]


@pytest.mark.parametrize(
    ("condition", "places"),
    [
        ({"type": "terms", "values": ["a", "b"]}, [0, 1]),
        ({"type": "terms", "property": "length", "values": ["10.0"]}, [1]),
        ({"type": "range", "property": "length", "ge": 9.5}, [1]),
        ({"type": "range", "property": "length", "le": 9}, [0, 3]),
    ],
)
def test_filters_by_metadata(library, condition, places):
    site, dataset, ids = library
    scope = {"entity": "metadata", "metadata_property": condition.pop("property", "topic")}
    body = {"filters": {"and": [{**condition, "scope": scope}]}}
    assert site.found(dataset, **body) == [ids[place] for place in places]


def test_sorts_by_numbers_and_puts_what_has_none_last(library):
    site, dataset, ids = library
    scope = {"entity": "metadata", "metadata_property": "length"}
    for order, places in (("asc", [3, 0, 1, 2]), ("desc", [1, 0, 3, 2])):
        found = site.found(dataset, sort=[{"scope": scope, "order": order}])
        assert found == [ids[place] for place in places]


def test_no_password_is_seen_by_others(story):
    site = story[0]
    log = site.site.log.read_text()
    shown = [str(described(site.services)), log, site.site.settings_file.read_text()]
    for process in [psutil.Process(control.running(site.site).pid), *_children(site)]:
        shown += [str(process.cmdline()), str(process.environ())]
    for text in shown:
        assert PASSWORD not in text
        assert IN_ADDRESS not in text
    assert (site.home / "services.json").stat().st_mode & 0o777 == 0o600


def test_other_settings_are_refused_while_it_is_up(story):
    site = story[0]
    with pytest.raises(BusyError, match="other settings"):
        control.up(site.site, site.reach, services=replace(site.services, workers=3))
    with pytest.raises(BusyError, match="other settings"):
        control.up(site.site, site.reach, services=None)


def test_a_backup_becomes_a_site_on_sqlite_or_on_another_database(
    story, library, database_servers, site_in, tmp_path_factory
):
    site, dataset, *_ = story
    folder = tmp_path_factory.mktemp("grown")
    archive = backup(site.site, folder / "site.tar.gz")
    with tarfile.open(archive) as packed:
        assert "services.json" not in packed.getnames()
    other = site_in(folder / "other")
    restore(other.site, archive)
    tables = ("users", "records", "responses", "questions", "workspaces_users")
    counts = [other.number(f"SELECT count(*) FROM {table}") for table in tables]
    assert counts == [site.number(f"SELECT count(*) FROM {table}") for table in tables]
    # From the file of SQLite into an empty database.
    other.services = Services(database_servers.make_database("other"), database_servers.redis, 1)
    other.start()
    assert not other.site.database.exists()
    assert counts == [other.number(f"SELECT count(*) FROM {table}") for table in tables]
    assert sorted(_stored(other, dataset)[1]) == sorted(_stored(site, dataset)[1])
    _, texts, ids = library
    assert other.found(texts) == ids  # in the order in which they came
    assert other.found(texts, "zurich") == ids[:1]
    other.kill()  # the first process; nothing that it started is left over
    _wait(lambda: not _processes_of(other) and not is_listened_to(other.reach.port), 5)
    # Restored once more, over the database that has the site already.
    restore(other.site, archive, replace=True)
    with pytest.raises(PlumblineError, match=r"holds the site as it was.*createdb"):
        control.up(other.site, other.reach)


UNUSABLE = {
    "a wrong password": (
        {"database": "postgresql://team:wrong@127.0.0.1:PORT/none"},
        "Correct the user or the password",
    ),
    "no such database": (
        {"database": f"postgresql://team:{IN_ADDRESS}@127.0.0.1:PORT/none"},
        "Make both first: createuser",
    ),
    "nobody there": (
        {"database": f"postgresql://team:{IN_ADDRESS}@127.0.0.1:1/none"},
        "Start PostgreSQL",
    ),
    "another site's": (
        {"database": f"postgresql://team:{IN_ADDRESS}@127.0.0.1:PORT/team_site"},
        "holds another Argilla site",
    ),
    "too many processes": ({"workers": 40}, "accepts 60 connections, too few for 40"),
    "Redis asks": ({"redis": "redis://127.0.0.1:REDIS/0"}, "asks for a password"),
    "Redis refuses": ({"redis": "redis://:wrong@127.0.0.1:REDIS/0"}, "refuses the password"),
    "no Redis there": ({"redis": "redis://127.0.0.1:1/0"}, "Start it, or correct --redis"),
}


@pytest.mark.parametrize(("change", "said"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_work_is_refused_with_the_reason(
    team_site, database_servers, site_in, tmp_path, change, said
):
    site = site_in(tmp_path / "site")
    ports = {"PORT": database_servers.port, "REDIS": database_servers.redis_port}
    for name, port in ports.items():
        change = {k: v.replace(name, str(port)) if k != "workers" else v for k, v in change.items()}
    address = database_servers.database("postgres")
    site.services = replace(Services(address, database_servers.redis, 2), **change)
    with pytest.raises(PlumblineError, match=said) as refused:
        site.start()
    assert PASSWORD not in str(refused.value)
    assert IN_ADDRESS not in str(refused.value)
    assert not (site.home / "services.json").exists()  # what does not work is not kept


def test_an_old_postgresql_is_refused():
    assert "version 13, and a site needs 14" in problem_with_version(130014, "host/name")
    assert problem_with_version(140000, "host/name") is None


GOOD = {"database": "postgresql://ana@db/labels", "redis": "redis://cache:6379/0", "workers": None}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis": None}, "Give --redis"),
        ({"database": None}, "Give --database"),
        ({"database": "mysql://ana@db/labels"}, "--database is not an address"),
        ({"database": "postgresql://ana:pass@db:port/labels"}, "--database is not an address"),
        ({"redis": "cache:6379"}, "--redis is not an address"),
        ({"workers": 0}, "--workers is 0"),
        ({"workers": 65}, "--workers is 65"),
        ({"database": None, "redis": None, "workers": 4}, "SQLite serves one process"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given, said):
    with pytest.raises(ConfigError, match=said) as refused:
        chosen(None, **(GOOD | given))
    assert "pass@" not in str(refused.value)


def test_settings_are_kept_until_they_are_changed():
    first = chosen(None, **GOOD)
    assert first == Services(GOOD["database"], GOOD["redis"], 2)
    assert chosen(first, None, None, None) == first
    assert chosen(first, None, None, 4) == replace(first, workers=4)
    assert chosen(None, None, None, None) is None
    assert chosen(None, None, None, 1) is None


def test_addresses_are_shown_without_their_passwords():
    for url, shown in {
        "postgresql://ana:p%40ss@db:5432/labels?sslmode=require&password=x": (
            "postgresql://ana@db:5432/labels?sslmode=require"
        ),
        "redis://:secret@cache:6379/0": "redis://cache:6379/0",
        "redis://cache": "redis://cache",
    }.items():
        assert without_password(url) == shown


def test_the_compose_file_starts_a_command_that_there_is():
    """The same settings as above, as far as they can be read without Docker."""
    folder = DOCS / "labelling-server"
    written = (folder / "compose.yaml").read_text()
    services = YAML(typ="safe").load(written)["services"]
    assert not {"elasticsearch", "opensearch"} & set(services)
    site = services["site"]
    values = {"${HOST:?set it in .env}": "labels.example.org", "${WORKERS:-2}": "2"}
    given = dict(word.lstrip("-").partition("=")[::2] for word in site["command"][1:])
    given = {name: values.get(value, value) for name, value in given.items()}
    known = inspect.signature(server.up).parameters
    assert site["command"][0] == "up"
    assert {name.replace("-", "_") for name in given} <= set(known)
    Reach(
        host=given["host"],
        port=int(given["port"]),
        allow_hosts=(given["allow-host"],),
        proxies=(given["behind-proxy"],),
    ).check()
    addresses = [
        re.sub(r"\$\{\w+:\?set it in .env\}", "word", site["environment"][name])
        for name in ("PLUMBLINE_DATABASE", "PLUMBLINE_REDIS")
    ]
    assert chosen(None, *addresses, int(given["workers"])).workers == 2
    assert "foreground" in given  # else the container would end at once
    # Every variable has a line to fill in.
    lines = (folder / "example.env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if not line.startswith("#")}
    assert names == set(re.findall(r"(?<!\$)\$\{(\w+)", written))
    # Every package in the image is one of those that the tests run with.
    packages = re.findall(r"^    ([a-z. ]+)$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    pinned = (DOCS.parent / "constraints.txt").read_text()
    for package in packages[0].split():
        assert re.search(rf"^{re.escape(package)}==", pinned, re.MULTILINE), package


def test_in_the_foreground_it_stays_until_it_is_told_to_stop(monkeypatch, tmp_path):
    """With a process that waits in the place of the server."""
    site = Site(tmp_path)

    def tell_to_stop():
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # or it would end the tests
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        running = control.Running(process.pid, "http://127.0.0.1", time.time())
        monkeypatch.setattr(control, "down", lambda _: process.terminate())
        threading.Thread(target=tell_to_stop).start()
        control.stay(site, running)
        assert process.wait(10) == -signal.SIGTERM
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        running = control.Running(process.pid, "http://127.0.0.1", time.time())
        with pytest.raises(PlumblineError, match="ended by itself"):
            control.stay(site, running)
    with pytest.raises(PlumblineError, match="ended by itself"):  # before it is looked at
        control.stay(site, running)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
