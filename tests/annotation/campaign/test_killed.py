"""What a kill leaves behind: of a push, a pull or the server, at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from annotation.campaign.pull import labels_of, pull

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


def script(ground, body):
    """Run Python on this campaign in a process of its own."""
    head = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parents[1])!r}]
        from conftest import pairs
        from annotation.argilla import api as argilla_module
        from annotation.campaign import pull as pulling, push as pushing
        from annotation.campaign import datasets, folder as folder_module
        from annotation.argilla.api import Argilla
        from annotation.argilla.client import Connection
        from annotation.campaign.config import CampaignConfig
        from annotation.campaign.folder import Campaign
        site = Argilla(Connection({ground.server.url!r}, os.environ["KEY"]))
        folder, name = Path({str(ground.folder)!r}), {ground.name!r}
        def dies(owner, name, after):
            original, calls = getattr(owner, name), []
            def wrapped(*arguments, **more):
                calls.append(1)
                if len(calls) > after:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*arguments, **more)
            setattr(owner, name, wrapped)
    """
    code = textwrap.dedent(head) + body
    environment = {**os.environ, "KEY": ground.server.api_key, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, env=environment, capture_output=True
    )


PUSH = """
pushing.PUSH_PAGE = 4
config = CampaignConfig(name=name, people=people, overlap=1, repeat_share=0.2,
                        repeat_distance=3, gold_share=0)
pushing.push(folder, site, config, pairs(20))
"""


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        ("Argilla", "create_dataset", 1),
        ("Argilla", "publish", 0),
        ("Argilla", "_request_once", 7),
        ("Argilla", "send", 0),
        ("Argilla", "send", 2),
        ("folder_module", "write_private", 1),
        ("folder_module", "write_private", 2),
        ("folder_module", "write_private", 3),
        ("Campaign", "save", 0),
    ],
)
def test_a_push_that_is_killed_goes_on_and_sends_nothing_twice(ground, owner, name, after):
    people = (ground.person(), ground.person())
    killed = script(ground, f"people = {people!r}\ndies({owner}, {name!r}, {after})\n" + PUSH)
    assert killed.returncode == -9, killed.stderr.decode()
    decided = ground.campaign.items() if (ground.folder / "items.jsonl").exists() else None
    script(ground, f"people = {people!r}\n" + PUSH).check_returncode()
    items = ground.campaign.items()
    assert decided in (None, [], items)
    assert Counter(item.purpose for item in items) == {"vote": 20, "repeat": 4}
    for queue, place in ground.campaign.places.items():
        records = ground.site.request("GET", f"/datasets/{place.dataset_id}/records?limit=100")[
            "items"
        ]
        assert [record["external_id"] for record in records] == [
            item.id for item in items if item.queue == queue
        ]


PULL = """
argilla_module.PULL_PAGE = 2
pulling.pull(Campaign(folder), site)
"""


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        ("pulling.Ledger", "append", 0),
        ("pulling.Ledger", "append", 2),
        ("Campaign", "note_pulled", 0),
        ("Campaign", "note_people", 0),
    ],
)
def test_a_pull_that_is_killed_goes_on_and_takes_nothing_twice(
    ground, owner, name, after, pairs, better
):
    people = [ground.person(), ground.person()]
    ground.push(pairs(16), people)
    acknowledged = set()
    for person in people:
        acknowledged |= set(ground.answer(person, better))
    killed = script(ground, f"dies({owner}, {name!r}, {after})\n" + PULL)
    assert killed.returncode == -9, killed.stderr.decode()
    with (ground.folder / "labels.jsonl").open("a") as journal:
        journal.write('{"id": "r-')  # as a kill in the middle of a line would leave it
    script(ground, PULL).check_returncode()
    lines = (ground.folder / "labels.jsonl").read_text().splitlines()
    assert len(lines) == 16
    assert {json.loads(line)["id"] for line in lines} == acknowledged
    assert len(labels_of(ground.campaign).labels) == 16


def test_a_server_that_is_killed_only_delays_and_loses_nothing(own_ground, pairs, better):
    ground, server = own_ground, own_ground.server
    people = [ground.person() for _ in range(3)]
    acknowledged = {}
    killed = []

    def kill_when(reached):
        while not reached():
            time.sleep(0.01)
        server.kill()
        killed.append(len(acknowledged))
        server.start()

    def answer(name):
        desk = ground.client(name)
        for record in ground.queue(name)[:15]:
            acknowledged[desk.submit(record.id, better(record))] = record.id

    def kill_twice():
        kill_when(lambda: len(acknowledged) >= 5)
        kill_when(lambda: len(acknowledged) >= 25)

    there = lambda: any(ground.folder.glob("items.jsonl"))  # noqa: E731 - sending has begun
    killer = threading.Thread(target=kill_when, args=(there,))
    killer.start()
    ground.push(pairs(150), people)
    killer.join()
    threads = [threading.Thread(target=answer, args=(name,)) for name in people]
    threads.append(threading.Thread(target=kill_twice))
    for thread in threads:
        thread.start()
    pulled = 0
    while any(thread.is_alive() for thread in threads):
        pulled += pull(ground.campaign, ground.site).new
        time.sleep(0.05)
    pulled += pull(ground.campaign, ground.site).new
    assert len(killed) == 3
    assert len(acknowledged) == 45
    found = ground.campaign.ledger().current()
    assert {answer.id for answer in found} == set(acknowledged)
    assert pulled == len(found) == 45
    for queue, place in ground.campaign.places.items():
        decided = {item.id for item in ground.campaign.items() if item.queue == queue}
        assert ground.site.item_ids(place.dataset_id) == decided
        assert ground.site.progress(place.dataset_id).records == len(decided)
