"""Campaigns on the real server of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.campaign.config import CampaignConfig
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.pairs import Pair
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push
from annotation.campaign.folder import Campaign
from plumbline.data.records import assistant, user


@dataclass
class Ground:
    """A server, a folder for a campaign, and ways to do things there."""

    server: object
    folder: Path
    name: str
    _desks: dict = field(default_factory=dict)

    @property
    def site(self):
        return Argilla(Connection(self.server.url, self.server.api_key), patience=30)

    @property
    def campaign(self):
        return Campaign(self.folder)

    def push(self, pairs, people=(), gold=None, **settings):
        quiet = {"gold_share": 0.0, "repeat_share": 0.0, "overlap": 1}
        config = CampaignConfig(name=self.name, people=tuple(people), **(quiet | settings))
        return push(self.folder, self.site, config, pairs, gold=gold)

    def person(self):
        return self.server.person()["username"]

    def desk(self, name):
        """Where a person sits; they sign in once."""
        if name not in self._desks:
            self._desks[name] = LabelerClient.sign_in(
                self.server.url, name, f"password-of-{name}", patience=30
            )
        return self._desks[name]

    def queue(self, name):
        """Everything in a person's queue, as their page gets it."""
        desk = self.desk(name)
        (dataset,) = desk.datasets()
        return desk.queue(dataset.id, limit=1000)[0]

    def answer(self, name, how=lambda record: {"choice": "a"}, count=1000):
        """Let a person answer; return what was acknowledged."""
        desk = self.desk(name)
        answers = {record.id: how(record) for record in self.queue(name)[:count]}
        return {desk.submit(record, values): values for record, values in answers.items()}

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
    return {"choice": "a" if first else "b", "strength": 3, "rationale": "It is the better one."}


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
