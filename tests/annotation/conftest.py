"""A real labelling server for the tests: one for all of them, on a port of its own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from annotation.server import control
from annotation.server.home import Reach, Site


@dataclass
class LabellingSite:
    """A site that runs, and what tests do to it."""

    site: Site
    reach: Reach
    _numbers: itertools.count = field(default_factory=itertools.count)

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
        control.up(self.site, self.reach)

    def stop(self) -> None:
        control.down(self.site)

    def kill(self) -> None:
        """End the server as a power cut would, as far as the process goes."""
        running = control.running(self.site)
        assert running is not None
        process = psutil.Process(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        process.wait(10)

    def client(self, api_key: str | None = None, token: str | None = None) -> httpx.Client:
        """A client as the owner, or as whoever's key or token is given."""
        headers = (
            {"Authorization": f"Bearer {token}"}
            if token is not None
            else {"X-Argilla-Api-Key": self.api_key if api_key is None else api_key}
        )
        return httpx.Client(
            base_url=f"{self.url}/api/v1", headers=headers, trust_env=False, timeout=30
        )

    def ask(self, method: str, path: str, **content: Any) -> Any:
        """Ask as the owner; return the answer's JSON."""
        with self.client() as client:
            response = client.request(method, path, **content)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def sign_in(self, name: str, password: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/api/v1/token",
            data={"username": name, "password": password},
            trust_env=False,
            timeout=30,
        )

    def fresh(self, stem: str) -> str:
        """A name that no other test uses."""
        return f"{stem}-{next(self._numbers)}"

    def person(self, workspace: str | None = None, role: str = "annotator") -> dict[str, Any]:
        """A new person, with a password and key, in a workspace if one is named."""
        name = self.fresh("person")
        user = self.ask(
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
            self.ask("POST", f"/workspaces/{workspace}/users", json={"user_id": user["id"]})
        return {**user, "password": f"password-of-{name}"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _site(folder) -> LabellingSite:
    return LabellingSite(Site(folder), Reach(port=free_port()))


@pytest.fixture(scope="session")
def argilla_site(tmp_path_factory):
    """A labelling site that runs for all tests; use names of your own (`fresh`)."""
    made = _site(tmp_path_factory.mktemp("labelling") / "site")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def own_site(tmp_path):
    """A labelling site that does not run yet, for tests that stop, kill or change it."""
    made = _site(tmp_path / "site")
    yield made
    made.stop()
