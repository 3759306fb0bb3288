"""A larger team on the labelling site with PostgreSQL and Redis: two hundred people at their pace.

    python benchmarks/labeling_team.py [--people N] [--seconds N] [--workers N] [--sqlite]

5,000 pairs, three votes each, in one shared queue. Each of 200 people gives an answer every 20
seconds or so (10 to 30, drawn at random): about ten answers per second in all, each followed by
the request for the next pairs, as the page sends them. The load runs in a process of its own.
PostgreSQL and Redis are those of the system's packages, started for this and ended afterwards,
unless --database and --redis name others. The last line is one JSON object with milliseconds;
progress goes to standard error. Afterwards every acknowledged answer is compared with what the
server has.

Passwords are hashed cheaply here, because to make and to sign in 200 people would take minutes;
nobody signs in while times are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
# A script's folder comes first on the path, and annotation.py is in this one.
sys.path[:] = [
    str(ROOT),
    *(e for e in sys.path if Path(e or ".").resolve() != Path(__file__).parent),
]

from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection
from annotation.argilla.labeler_client import LabelerClient
from annotation.campaign.config import CampaignConfig
from annotation.campaign.folder import campaign_folder
from annotation.campaign.push import push
from annotation.server import control
from annotation.server.embedded.plumbline_site.services import Services
from annotation.server.site_folder import Reach, Site
from benchmarks.finished_seeds import say
from benchmarks.labeling_pairs import pairs_named
from plumbline.ports import free_port
from tests.database_servers import DatabaseServers, missing

PAIRS, VOTES = 5000, 3
SECONDS_PER_ANSWER = 20.0
CHOICES = ("a", "b", "tie", "both_bad")


def quick_passwords(folder: Path) -> None:
    """Let the server hash passwords in a moment."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import bcrypt, functools\nbcrypt.gensalt = functools.partial(bcrypt.gensalt, 4)\n"
    )
    control.EMBEDDED = f"{folder}{os.pathsep}{control.EMBEDDED}"  # type: ignore[assignment]


def prepared(site: Site, url: str, people: int) -> tuple[str, list[str]]:
    """Make people and pairs; return the dataset and everybody's token."""
    server = Argilla(Connection(url, site.owner()["api_key"]))
    names = [f"labeller-{number:03}" for number in range(people)]
    for name in names:
        server.create_user(name, f"password-of-{name}")
    pairs = pairs_named("team", PAIRS)
    config = CampaignConfig(
        name="team", overlap=VOTES, gold_share=0, repeat_share=0, near_identical=1
    )
    say("pushing pairs")
    started = time.monotonic()
    push(campaign_folder(site.home, "team"), server, config, pairs, members=names)
    say(f"  {PAIRS / (time.monotonic() - started):.0f} pairs pushed per second")

    def token(name: str) -> str:
        form = {"username": name, "password": f"password-of-{name}"}
        reply = httpx.post(f"{url}/api/v1/token", data=form, trust_env=False, verify=False)
        return str(reply.raise_for_status().json()["access_token"])

    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(token, names))
    first = LabelerClient.sign_in(url, names[0], f"password-of-{names[0]}")
    (dataset,) = first.datasets()
    return dataset.id, tokens


async def label(work: dict[str, Any], token: str, seed: int, until: float, report: Any) -> None:
    """Answer pairs at a person's pace."""
    dice = random.Random(seed)
    pace = work["seconds_per_answer"]
    headers = {"Authorization": f"Bearer {token}"}
    queue = f"/labelling/queues/{work['dataset']}/records"
    async with httpx.AsyncClient(
        base_url=f"{work['url']}/api/v1",
        headers=headers,
        trust_env=False,
        timeout=60,
        verify=False,  # there is no TLS; to read certificates for each person takes long
    ) as client:
        await asyncio.sleep(dice.uniform(0, pace))  # people do not begin at one moment
        wanted = (await client.get(queue)).json()["records"]
        while time.monotonic() < until and wanted:
            record, choice = wanted[0]["id"], dice.choice(CHOICES)
            answer = {
                "status": "submitted",
                "record_id": record,
                "values": {"choice": {"value": choice}},
            }
            begun = time.monotonic()
            saved = await client.post("/me/responses/bulk", json={"items": [answer]})
            submitted = time.monotonic() - begun
            item = saved.json()["items"][0]["item"] if saved.is_success else None
            begun = time.monotonic()
            following = await client.get(queue)
            report(
                record=record, choice=choice, acknowledged=item is not None,
                submit=submitted, next=time.monotonic() - begun, ok=following.is_success,
            )  # fmt: skip
            wanted = following.json()["records"] if following.is_success else wanted
            await asyncio.sleep(dice.uniform(0.5 * pace, 1.5 * pace) - (time.monotonic() - begun))


async def load(work: dict[str, Any]) -> None:
    """Let everybody label; write what happened, one line for each answer."""
    until = time.monotonic() + work["seconds"]

    def report(**what: Any) -> None:
        sys.stdout.write(json.dumps(what) + "\n")

    everybody = (label(work, t, seed, until, report) for seed, t in enumerate(work["tokens"]))
    await asyncio.gather(*everybody)


def stored(site: Site, url: str, dataset: str) -> set[tuple[str, str]]:
    """Return record and choice of every answer that the server has."""
    there = set()
    with httpx.Client(
        base_url=f"{url}/api/v1",
        headers={"X-Argilla-Api-Key": site.owner()["api_key"]},
        trust_env=False,
        timeout=60,
    ) as client:
        for offset in range(0, PAIRS, 1000):
            page = client.get(
                f"/datasets/{dataset}/records",
                params={"offset": offset, "limit": 1000, "include": "responses"},
            ).json()["items"]
            there |= {
                (record["id"], response["values"]["choice"]["value"])
                for record in page
                for response in record["responses"]
            }
    return there


def search_times(url: str, token: str, dataset: str, queries: int = 100) -> list[float]:
    """Return seconds of text searches among the 5,000 pairs, of one person, a page at a time."""
    dice = random.Random(1)
    times = []
    with httpx.Client(
        base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, trust_env=False,
        timeout=60, verify=False,
    ) as client:  # fmt: skip
        for number in range(queries):
            rare, common = (
                str(dice.randrange(PAIRS)),
                dice.choice(["compare", "resp*", '"is right"']),
            )
            words = (rare, common, f"{rare} {common}")[number % 3]
            begun = time.monotonic()
            client.post(
                f"/me/datasets/{dataset}/records/search",
                json={"query": {"text": {"q": words}}},
                params={"limit": 10},
            ).raise_for_status()
            times.append(time.monotonic() - begun)
    return times


def milliseconds(times: list[float]) -> dict[str, float]:
    parts = statistics.quantiles(times, n=100)
    return {"p50": round(1000 * parts[49], 1), "p95": round(1000 * parts[94], 1)}


def measure(site: Site, reach: Reach, chosen: argparse.Namespace) -> dict[str, Any]:
    """Let people label on a site that runs; return the results."""
    url = reach.local_url
    dataset, tokens = prepared(site, url, chosen.people)
    running = control.running(site)
    assert running is not None
    processes = [psutil.Process(running.pid), *psutil.Process(running.pid).children()]
    before = sum(sum(p.cpu_times()[:2]) for p in processes)
    say(f"{chosen.people} people label for {chosen.seconds:.0f} s")
    work = {
        "url": url, "dataset": dataset, "tokens": tokens, "seconds": chosen.seconds,
        "seconds_per_answer": SECONDS_PER_ANSWER,
    }  # fmt: skip
    script = [sys.executable, __file__, "--load"]
    done = subprocess.run(
        script, input=json.dumps(work), stdout=subprocess.PIPE, text=True, check=True
    )
    busy = sum(sum(p.cpu_times()[:2]) for p in processes) - before
    report = [json.loads(line) for line in done.stdout.splitlines()]
    acknowledged = [answer for answer in report if answer["acknowledged"]]
    there = stored(site, url, dataset)
    return {
        "people": chosen.people,
        "answers": len(report),
        "answers_per_second": round(len(report) / chosen.seconds, 1),
        "refused": len(report) - len(acknowledged) + sum(not answer["ok"] for answer in report),
        "lost": sum((answer["record"], answer["choice"]) not in there for answer in acknowledged),
        "submit_ms": milliseconds([answer["submit"] for answer in report]),
        "next_ms": milliseconds([answer["next"] for answer in report]),
        "search_ms": milliseconds(search_times(url, tokens[0], dataset)),
        "server_cores": round(busy / chosen.seconds, 2),
        "memory_mib": round(running.memory() / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--workers", type=int, default=2, help="server processes")
    parser.add_argument("--sqlite", action="store_true", help="the site on SQLite, to compare")
    parser.add_argument("--database", help="a PostgreSQL with an empty database")
    parser.add_argument("--redis")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        asyncio.run(load(json.load(sys.stdin)))
        return
    servers = None
    if not chosen.sqlite and chosen.database is None:
        reason = missing()
        if reason is not None:
            sys.exit(f"{reason}. Or name others with --database and --redis.")
        servers = DatabaseServers()
    with tempfile.TemporaryDirectory() as folder:
        quick_passwords(Path(folder) / "quick-passwords")
        site, reach = Site(Path(folder) / "site"), Reach(port=free_port())
        services = None
        try:
            if servers is not None:
                servers.start_postgresql()
                servers.start_redis()
                address = servers.make_database("labels")
                services = Services(address, servers.redis, chosen.workers)
            elif not chosen.sqlite:
                services = Services(chosen.database, chosen.redis, chosen.workers)
            say("starting the site")
            control.up(site, reach, say, services)
            result = measure(site, reach, chosen)
        finally:
            control.down(site)
            if servers is not None:
                servers.close()
    on = "SQLite" if services is None else f"PostgreSQL, {chosen.workers} server processes"
    print(json.dumps({"site": on, **result}))


if __name__ == "__main__":
    main()
