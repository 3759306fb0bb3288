"""The labelling site under load, and under ``kill -9``.

    python benchmarks/annotation.py [--quick]

Twenty labellers at once, on the real server, through the requests that the page makes. The last
line is one JSON object; progress goes to standard error.

- Rate: 1,000 records, overlap 3, nobody thinking: 3,000 answers as fast as they are taken.
- Safety: the same again, while the server and the puller are killed at random moments, ten times
  each. Every acknowledged answer must come back by ``pull`` exactly once, as it was given.
- Push: 5,000 records. Search: 10,000 records, by one person, a page of ten at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

# This file has the name of the package it measures, and Python looks beside a script first.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import Campaign, campaign_folder
from annotation.campaign.pairs import pairs_of
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push
from annotation.server import control
from annotation.server.site_folder import Reach, Site
from plumbline.world.corpus import corpus
from plumbline.world.data import prompts

CHOICES = ("a", "b", "tie", "both_bad")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class Office:
    """A site with labellers."""

    site: Site
    reach: Reach
    labelers: int
    passwords: dict[str, str] = field(default_factory=dict)

    def argilla(self) -> Argilla:
        return Argilla(Connection(self.reach.local_url, self.site.owner()["api_key"]))

    def create_accounts(self) -> None:
        server = self.argilla()
        for number in range(self.labelers):
            name = f"labeller-{number:02}"
            self.passwords[name] = f"password-of-{name}"
            server.create_user(name, self.passwords[name])

    def campaign(
        self, name: str, pairs: int, overlap: int, first: int = 0
    ) -> tuple[Campaign, float]:
        """Push that many pairs; return the campaign and the seconds it took."""
        conversations = prompts(first, 200, "preferences")
        texts = corpus(first, 2 * pairs)
        rows = [
            {
                "pair_id": f"{name}-{n}",
                "prompt": conversations[n % len(conversations)],
                "a": texts[2 * n] + f" ({n})",
                "b": texts[2 * n + 1],
            }
            for n in range(pairs)
        ]
        config = CampaignConfig(
            name=name, overlap=overlap, gold_share=0, repeat_share=0, near_identical=1
        )
        usable, bad = pairs_of(rows, name)
        assert not bad.rows
        folder = campaign_folder(self.site.home, name)
        started = time.monotonic()
        push(folder, self.argilla(), config, usable, members=sorted(self.passwords))
        return Campaign(folder), time.monotonic() - started


@dataclass
class Tally:
    """What was acknowledged, and how long it took."""

    answers: dict[tuple[str, str], str] = field(default_factory=dict)
    """Choice by record and person."""
    seconds: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def label(office: Office, name: str, tally: Tally, left: threading.Event) -> None:
    """Work through the queue as a person would who decides at once."""
    desk = LabelerClient.sign_in(office.reach.local_url, name, office.passwords[name], patience=120)
    (dataset,) = [d for d in desk.datasets() if d.name == left.name]  # type: ignore[attr-defined]
    dice = random.Random(name)
    while True:
        records, _ = desk.queue(dataset.id)
        if not records:
            return
        for record in records:
            choice = dice.choice(CHOICES)
            started = time.monotonic()
            desk.submit(record.id, {"choice": choice, "rationale": f"{name} says so."})
            took = time.monotonic() - started
            with tally.lock:
                tally.answers[record.id, name] = choice
                tally.seconds.append(took)


def everybody(office: Office, campaign: str) -> tuple[Tally, float]:
    """Let all labellers work at once until nothing is left."""
    tally = Tally()
    event = threading.Event()
    event.name = campaign  # type: ignore[attr-defined]
    threads = [
        threading.Thread(target=label, args=(office, name, tally, event), daemon=True)
        for name in office.passwords
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.monotonic() - started


def kill_server(office: Office) -> None:
    server = control.running(office.site)
    if server is not None:
        os.kill(server.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(server.pid)] if psutil.pid_exists(server.pid) else [], 10)
    control.up(office.site, office.reach)


def puller(office: Office, campaign: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "plumbline", "annotate", "pull", "--campaign", campaign,
            "--home", str(office.site.home), "--wait", "1000000",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def under_fire(office: Office, campaign: str, kills: int, seed: int) -> Tally:
    """Let everybody work while the server and the puller are killed."""
    dice = random.Random(seed)
    done = threading.Event()
    killed = Counter[str]()
    failures: list[BaseException] = []

    def fire() -> None:
        try:
            process = puller(office, campaign)
            for _ in range(kills):
                time.sleep(dice.uniform(1.0, 5.0))
                if not done.is_set():
                    kill_server(office)
                    killed["server"] += 1
                time.sleep(dice.uniform(0.5, 3.0))
                process.kill()
                process.wait()
                killed["puller"] += 1
                process = puller(office, campaign)
            process.kill()
            process.wait()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=fire)
    thread.start()
    tally, seconds = everybody(office, campaign)
    done.set()
    thread.join()
    if failures:
        raise failures[0]
    say(f"  killed: {dict(killed)}; {len(tally.answers)} acknowledged in {seconds:.0f} s")
    return tally


def compare(office: Office, campaign: Campaign, tally: Tally) -> tuple[int, int]:
    """Return how many acknowledged answers came back as given, and how many answers twice."""
    server = office.argilla()
    pull(campaign, server)
    labels = labels_of(campaign).labels
    items = {item.id: item for item in campaign.items()}
    names = {user.id: user.name for user in server.users()}
    records = record_ids(office, campaign)
    there: Counter[tuple[str, str]] = Counter()
    choices: dict[tuple[str, str], str] = {}
    for answer in campaign.ledger().current():
        key = (records[answer.item], names[answer.user_id])
        there[key] += 1
        choices[key] = str(answer.values["choice"])
    assert len(labels) == sum(there.values()), (len(labels), sum(there.values()))
    assert len(items) >= len({record for record, _ in there})
    stored = sum(choices.get(key) == choice for key, choice in tally.answers.items())
    return stored, sum(count - 1 for count in there.values())


def record_ids(office: Office, campaign: Campaign) -> dict[str, str]:
    """Return record ids by the items' external ids, from the server itself."""
    (place,) = campaign.places.values()
    ids: dict[str, str] = {}
    with httpx.Client(
        base_url=f"{office.reach.local_url}/api/v1",
        headers={"X-Argilla-Api-Key": office.site.owner()["api_key"]},
        trust_env=False,
    ) as client:
        offset = 0
        while True:
            page = client.get(
                f"/datasets/{place.dataset_id}/records", params={"offset": offset, "limit": 1000}
            ).json()["items"]
            if not page:
                return ids
            ids |= {record["external_id"]: record["id"] for record in page}
            offset += len(page)


def search_times(office: Office, campaign: str, queries: int) -> list[float]:
    """Return seconds for text searches as the page makes them."""
    name = next(iter(office.passwords))
    desk = LabelerClient.sign_in(office.reach.local_url, name, office.passwords[name])
    (dataset,) = [d for d in desk.datasets() if d.name == campaign]
    words = sorted({w.strip(".,:?!()").lower() for t in corpus(0, 400) for w in t.split()} - {""})
    dice = random.Random(0)
    times = []
    pending = [
        {"type": "terms", "scope": {"entity": entity, "property": "status"}, "values": ["pending"]}
        for entity in ("response", "record")
    ]
    for number in range(queries):
        text = " ".join(dice.sample(words, 1 + number % 3))
        started = time.monotonic()
        desk.request(
            "POST",
            f"/me/datasets/{dataset.id}/records/search",
            json={"query": {"text": {"q": text}}, "filters": {"and": pending}},
            params=[("include", "responses"), ("offset", "0"), ("limit", "10")],
        )
        times.append(time.monotonic() - started)
    return times


def p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--port", type=int, default=6931)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    part = 10 if chosen.quick else 1
    records, pushed, kills = 1000 // part, 5000 // part, 10 // (3 if chosen.quick else 1)
    with tempfile.TemporaryDirectory() as folder:
        office = Office(Site(Path(folder) / "site"), Reach(port=chosen.port), 20)
        say("starting the site")
        control.up(office.site, office.reach, say)
        try:
            office.create_accounts()
            say(f"push: {pushed} records")
            _, seconds = office.campaign("push", pushed, 1)
            push_rate = pushed / seconds
            say(f"  {push_rate:.0f} a second")
            say(f"rate: {records} records, overlap 3, {office.labelers} labellers")
            rate_campaign, _ = office.campaign("rate", records, 3, 1)
            tally, seconds = everybody(office, "rate")
            rate = len(tally.answers) / seconds
            stored, duplicated = compare(office, rate_campaign, tally)
            acknowledged = len(tally.answers)
            say(f"  {rate:.0f} answers per second, p95 {1000 * p95(tally.seconds):.0f} ms")
            say(f"safety: {kills} kills of the server and of the puller")
            fire_campaign, _ = office.campaign("fire", records, 3, 2)
            fired = under_fire(office, "fire", kills, chosen.seed)
            more, twice = compare(office, fire_campaign, fired)
            acknowledged, stored = acknowledged + len(fired.answers), stored + more
            duplicated += twice
            say(f"search: {2 * pushed} records")
            office.campaign("search", 2 * pushed, 1, 3)
            times = search_times(office, "search", 200)
            memory = control.running(office.site).memory() / 2**20  # type: ignore[union-attr]
            say(f"  p50 {1000 * statistics.median(times):.0f} ms; server {memory:.0f} MiB")
        finally:
            control.down(office.site)
    print(
        json.dumps(
            {
                "acknowledged": acknowledged,
                "stored": stored,
                "duplicated": duplicated,
                "responses_per_second": round(rate, 1),
                "submit_p95_ms": round(1000 * p95(tally.seconds), 1),
                "search_p95_ms": round(1000 * p95(times), 1),
                "push_per_second": round(push_rate, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
