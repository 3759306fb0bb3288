"""A real labelling server for the tests: one for all of them, on a port of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import psutil
import pytest

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import Campaign
from annotation.campaign.pairs import Pair
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push
from annotation.server import control
from annotation.server.embedded.plumbline_site.services import Services
from annotation.server.site_folder import Reach, Site
from plumbline.data.records import assistant, user
from plumbline.ports import free_port
from tests.database_servers import DatabaseServers, missing, query


@dataclass
class LabelingSite:
    """A site that runs, and what tests do to it."""

    site: Site
    reach: Reach
    services: Services | None = None
    _numbers: itertools.count = field(default_factory=itertools.count)
    _crowd: list[dict[str, Any]] = field(default_factory=list)

    @property
    def home(self):
        return self.site.home

    @property
    def url(self) -> str:
        return self.reach.local_url

    @property
    def api_key(self) -> str:
        return self.site.owner()["api_key"]

    def start(self) -> None:
        control.up(self.site, self.reach, services=self.services)

    def stop(self) -> None:
        control.down(self.site)

    def kill(self) -> None:
        """End the server as a power cut would, as far as the process goes."""
        running = control.running(self.site)
        assert running is not None
        process = psutil.Process(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        process.wait(10)

    def end(self) -> None:
        """Kill it if it runs: nobody needs what is in it any more."""
        if control.running(self.site) is not None:
            self.kill()

    def client(self, api_key: str | None = None, token: str | None = None) -> httpx.Client:
        """A client as the owner, or as whoever's key or token is given."""
        headers = (
            {"Authorization": f"Bearer {token}"}
            if token is not None
            else {"X-Argilla-Api-Key": self.api_key if api_key is None else api_key}
        )
        return httpx.Client(
            base_url=f"{self.url}/api/v1",
            headers=headers,
            trust_env=False,
            timeout=30,
            # Without TLS there is no certificate to check; reading all that are trusted takes long.
            verify=False,
        )

    def request(self, method: str, path: str, **content: Any) -> Any:
        """Ask as the owner; return the answer's JSON."""
        with self.client() as client:
            response = client.request(method, path, **content)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def workspace(self) -> str:
        """A new workspace's id."""
        return self.request("POST", "/workspaces", json={"name": self.fresh("space")})["id"]

    def dataset(
        self,
        workspace: str,
        *,
        fields: Mapping[str, str] = MappingProxyType({"text": "text"}),
        questions: Mapping[str, Mapping[str, Any]] | None = None,
        properties: Sequence[Mapping[str, Any]] = (),
        vectors: Mapping[str, int] = MappingProxyType({}),
        overlap: int = 1,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """A new published dataset's id: fields by kind, questions by settings."""
        body = {"name": self.fresh("dataset"), "workspace_id": workspace, "metadata": metadata}
        body["distribution"] = {"strategy": "overlap", "min_submitted": overlap}
        made = self.request("POST", "/datasets", json=body)["id"]
        for number, (name, kind) in enumerate(fields.items()):
            body = {"name": name, "title": name, "required": not number}
            # Of the kinds, only a field that draws itself takes more than its name.
            body["settings"] = {"type": kind} | ({"template": "x"} if kind == "custom" else {})
            self.request("POST", f"/datasets/{made}/fields", json=body)
        for number, (name, settings) in enumerate(
            (questions or {"better": self.labels("a", "b")}).items()
        ):
            body = {"name": name, "title": name, "required": not number, "settings": settings}
            self.request("POST", f"/datasets/{made}/questions", json=body)
        for part in properties:
            self.request(
                "POST", f"/datasets/{made}/metadata-properties", json={"title": "x", **part}
            )
        for name, dimensions in vectors.items():
            body = {"name": name, "title": name, "dimensions": dimensions}
            self.request("POST", f"/datasets/{made}/vectors-settings", json=body)
        self.request("PUT", f"/datasets/{made}/publish")
        return made

    @staticmethod
    def labels(*values: str, kind: str = "label_selection") -> dict[str, Any]:
        """The settings of a question with these answers."""
        return {"type": kind, "options": [{"value": value, "text": value} for value in values]}

    def push(self, dataset: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Push records, and return them as stored."""
        body = {"items": items}
        return self.request("POST", f"/datasets/{dataset}/records/bulk", json=body)["items"]

    def texts(self, dataset: str, *texts: str) -> list[str]:
        """Push records of one text each, and return their ids."""
        return [r["id"] for r in self.push(dataset, [{"fields": {"text": t}} for t in texts])]

    def submit(self, person: Mapping[str, Any], record: str, **values: Any) -> httpx.Response:
        """Submit an answer as a person."""
        body = {"status": "submitted", "values": {k: {"value": v} for k, v in values.items()}}
        with self.client(person["api_key"]) as client:
            return client.post(f"/records/{record}/responses", json=body)

    def found(
        self, dataset: str, query: str | None = None, *, field: str | None = None, **body: Any
    ) -> list[str]:
        """The ids of all the records that a search finds, in order."""
        if query is not None:
            body["query"] = {"text": {"q": query, "field": field}}
        path = f"/datasets/{dataset}/records/search"
        answer = self.request("POST", path, json=body, params={"limit": 1000})
        assert answer["total"] == len(answer["items"])
        return [item["record"]["id"] for item in answer["items"]]

    def number(self, sql: str) -> int:
        """What a query of the database returns."""
        if self.services is not None:
            return int(query(self.services.database, sql))
        with contextlib.closing(sqlite3.connect(self.site.database, timeout=30)) as database:
            return database.execute(sql).fetchone()[0]

    def sign_in(self, name: str, password: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/api/v1/token",
            data={"username": name, "password": password},
            trust_env=False,
            timeout=30,
            verify=False,
        )

    def fresh(self, stem: str) -> str:
        """A name that no other test uses."""
        return f"{stem}-{next(self._numbers)}"

    def person(self, workspace: str | None = None, role: str = "annotator") -> dict[str, Any]:
        """A new person, with a password and key, in a workspace if one is named."""
        name = self.fresh("person")
        user = self.request(
            "POST",
            "/users",
            json={
                "username": name,
                "first_name": name,
                "role": role,
                "password": f"password-of-{name}",
            },
        )
        if workspace is not None:
            self.join(workspace, user)
        return {**user, "password": f"password-of-{name}"}

    def join(self, workspace: str, user: Mapping[str, Any]) -> None:
        self.request("POST", f"/workspaces/{workspace}/users", json={"user_id": user["id"]})

    def crowd(self, workspace: str, size: int) -> list[dict[str, Any]]:
        """So many people in a workspace, who are in others as well: making them takes a while."""
        while len(self._crowd) < size:
            self._crowd.append(self.person())
        for member in self._crowd[:size]:
            self.join(workspace, member)
        return self._crowd[:size]


def _site(folder, services: Services | None = None, **reach: Any) -> LabelingSite:
    return LabelingSite(Site(folder), Reach(port=free_port(), **reach), services)


@pytest.fixture(scope="session")
def database_servers():
    """PostgreSQL and Redis that run; a database is to be made."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    servers = DatabaseServers()
    try:
        servers.start_postgresql()
        servers.start_redis()
        yield servers
    finally:
        servers.close()


@pytest.fixture(scope="session", autouse=True)
def quick_passwords(tmp_path_factory):
    """Let the servers of these tests hash passwords in a moment.

    At bcrypt's usual cost each new person and each sign-in takes a quarter of a second.
    """
    folder = tmp_path_factory.mktemp("quick-passwords")
    (folder / "sitecustomize.py").write_text(
        "import bcrypt, functools\nbcrypt.gensalt = functools.partial(bcrypt.gensalt, 4)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control, "EMBEDDED", f"{folder}{os.pathsep}{control.EMBEDDED}")
        yield


@pytest.fixture(scope="session")
def team_site(tmp_path_factory, database_servers):
    """A site on PostgreSQL and Redis, with two server processes."""
    database = database_servers.make_database("team_site")
    services = Services(database, database_servers.redis, 2)
    made = _site(tmp_path_factory.mktemp("team") / "site", services)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def argilla_site(request, tmp_path_factory):
    """A labelling site that runs for all tests; use names of your own (`fresh`).

    With ``PLUMBLINE_TEST_TEAM=1`` it is the one on PostgreSQL.
    """
    if os.environ.get("PLUMBLINE_TEST_TEAM") == "1":
        yield request.getfixturevalue("team_site")
        return
    made = _site(tmp_path_factory.mktemp("labelling") / "site")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def site_in():
    """Make a labelling site of one's own in a folder, which does not run yet."""
    made: list[LabelingSite] = []

    def make(folder, **reach: Any) -> LabelingSite:
        made.append(_site(folder, **reach))
        return made[-1]

    yield make
    for site in made:
        site.end()


@pytest.fixture
def own_site(tmp_path):
    """A labelling site that does not run yet, for tests that stop, kill or change it."""
    made = _site(tmp_path / "site")
    yield made
    made.end()


@pytest.fixture
def run_cli():
    """Run a plumbline command that must succeed."""
    from plumbline.commands.app import main

    def run(*words: object) -> None:
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            assert not ended.code, f"exit code {ended.code}"

    return run


@dataclass
class Ground:
    """A server, a folder for a campaign, and ways to do things there."""

    server: object
    folder: Path
    name: str
    _clients: dict = field(default_factory=dict)

    @property
    def site(self):
        return Argilla(Connection(self.server.url, self.server.api_key), patience=30)

    @property
    def campaign(self):
        return Campaign(self.folder)

    def push(self, pairs, people=(), gold=None, training=(), members=(), **settings):
        quiet = {"gold_share": 0.0, "repeat_share": 0.0, "overlap": 1}
        config = CampaignConfig(name=self.name, people=tuple(people), **(quiet | settings))
        return push(
            self.folder, self.site, config, pairs, gold=gold, training=training, members=members
        )

    def person(self):
        return self.server.person()["username"]

    def client(self, name):
        """A person who is signed in; they sign in once."""
        if name not in self._clients:
            self._clients[name] = LabelerClient.sign_in(
                self.server.url, name, f"password-of-{name}", patience=30
            )
        return self._clients[name]

    def queue(self, name):
        """Everything in a person's queue, as their page gets it."""
        client = self.client(name)
        (dataset,) = client.datasets()
        return client.queue(dataset.id, limit=1000)[0]

    def answer(self, name, how=lambda record: {"choice": "a"}, count=1000):
        """Let a person answer; return what was acknowledged."""
        client = self.client(name)
        answers = {record.id: how(record) for record in self.queue(name)[:count]}
        return {client.submit(record, values): values for record, values in answers.items()}

    def labels(self):
        pull(self.campaign, self.site)
        return labels_of(self.campaign).labels


@pytest.fixture
def ground(argilla_site, tmp_path):
    name = argilla_site.fresh("campaign")
    return Ground(argilla_site, tmp_path / name, name)


def pairs(count, start=0):
    return [
        Pair(
            f"p-{n}",
            [user("Hello"), assistant("Hello! What is it?"), user(f"What does number {n} cost?")],
            f"The better answer to question {n}.",
            f"Well, that one ({n}) I would have to look up first.",
        )
        for n in range(start, start + count)
    ]


def better(record):
    """Choose the better answer wherever it stands."""
    first = record.fields["response_a"].startswith("The better")
    return {"choice": "a" if first else "b", "strength": "3", "rationale": "It is the better one."}


@pytest.fixture(name="pairs")
def pairs_fixture():
    return pairs


@pytest.fixture(name="better")
def better_fixture():
    return better


@pytest.fixture
def own_ground(own_site, tmp_path):
    """A server of the test's own, which it may kill."""
    own_site.start()
    return Ground(own_site, tmp_path / "campaign", "campaign")
