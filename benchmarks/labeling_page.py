"""People on the labelling page: the time until the next pair, and whether an answer is lost.

    python benchmarks/labeling_page.py [--quick]

Five real browsers at once label the same 200 pairs through the page, by keyboard, with a third of a
second to a second of thought for each; people take longer, so this is harder on the server. Then
twenty labellers label 200 pairs, three votes each, by the requests that the page makes, with two to
four seconds of thought for each answer; and again without any. The last line is one JSON object;
progress goes to standard error.

In a browser, a time is the page's own: from Enter until the next pair is painted, and from sending
an answer until the server has said that it is saved. By requests, it is both together: until the
answer is saved and the next pair is there. Afterwards every answer is compared with what ``pull``
brings back. A browser keeps the times of its first 250 requests, about half of these.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

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
from annotation.campaign.folder import Campaign, campaign_folder
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push
from annotation.server import control
from annotation.server.site_folder import Reach, Site
from benchmarks.finished_seeds import say
from benchmarks.labeling_pairs import pairs_named
from plumbline.ports import free_port

CHOICES = ("a", "b", "tie", "both_bad")


@dataclass
class Work:
    """What was answered, and how long it took."""

    choices: dict[tuple[str, str], str] = field(default_factory=dict)
    """The choice, as shown, by person and by the text that was shown as A."""
    next_pair: list[float] = field(default_factory=list)
    """Seconds from an answer to the next pair."""
    saved: list[float] = field(default_factory=list)
    """Seconds until the server has said that an answer is saved."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Office:
    """A site with people."""

    site: Site
    reach: Reach

    def server(self) -> Argilla:
        return Argilla(Connection(self.reach.local_url, self.site.owner()["api_key"]))

    def campaign(self, name: str, people: Sequence[str], pairs: int, votes: int) -> Campaign:
        server = self.server()
        existing = {account.name for account in server.users()}
        for person in people:
            if person not in existing:
                server.create_user(person, password_of(person))
        config = CampaignConfig(
            name=name, people=tuple(people), overlap=votes, gold_share=0, repeat_share=0,
            near_identical=1,
        )  # fmt: skip
        folder = campaign_folder(self.site.home, name)
        push(folder, server, config, pairs_named(name, pairs))
        return Campaign(folder)

    def lost(self, campaign: Campaign, work: Work) -> int:
        """Return how many answers did not come back as they were given."""
        pull(campaign, self.server())
        names = campaign.people()
        pairs, items = campaign.pairs(), {item.id: item for item in campaign.items()}
        back = {}
        for answer in campaign.ledger().current():
            item = items[answer.item or ""]
            pair = pairs[item.pair_id]
            shown = pair.a if item.shown_first == "a" else pair.b
            back[names[answer.user_id], shown[:14]] = answer.values["choice"]
        assert len(labels_of(campaign).labels) == len(back)
        return sum(back.get(key) != choice for key, choice in work.choices.items())


def password_of(person: str) -> str:
    return f"password-of-{person}"


def at_once(people: Sequence[str], do: Callable[[str], None]) -> float:
    """Let everybody work at the same time; return the seconds."""
    errors: list[BaseException] = []

    def run(person: str) -> None:
        try:
            do(person)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(person,), daemon=True) for person in people]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.monotonic() - started


def by_browser(office: Office, person: str, pairs: int, work: Work) -> None:
    """Label everything in a person's queue, by keyboard, in a browser."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,800"):
        options.add_argument(option)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    try:
        driver.get(f"{office.reach.local_url}/label")
        wait = WebDriverWait(driver, 60, 0.02)
        wait.until(lambda d: d.find_element(By.NAME, "username").is_displayed())
        driver.find_element(By.NAME, "username").send_keys(person)
        driver.find_element(By.NAME, "password").send_keys(password_of(person), Keys.ENTER)
        head = "return document.querySelector('#response-a .text').textContent.slice(0, 14)"
        done = "return !document.querySelector('#done').hidden"
        wait.until(lambda d: d.execute_script(head))
        dice = random.Random(person)
        for _ in range(pairs):
            shown = driver.execute_script(head)
            choice = dice.choice(CHOICES)
            time.sleep(dice.uniform(0.3, 1.0))
            keys = [str(1 + CHOICES.index(choice)), *("2" if choice in "ab" else ""), Keys.ENTER]
            work.choices[person, shown] = choice
            ActionChains(driver).send_keys(*keys).perform()
            wait.until(
                lambda d, shown=shown: d.execute_script(head) != shown or d.execute_script(done)
            )
        left = "return Object.keys(localStorage).filter(k => k.includes('.outbox.')).length"
        wait.until(lambda d: d.execute_script(left) == 0)
        timed = driver.execute_script(
            "return [performance.getEntriesByName('submit-to-next').map(e => e.duration),"
            "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/bulk'))"
            ".map(e => e.duration)]"
        )
    finally:
        driver.quit()
    with work.lock:
        work.next_pair += [milliseconds / 1000 for milliseconds in timed[0]]
        work.saved += [milliseconds / 1000 for milliseconds in timed[1]]


def by_requests(office: Office, person: str, thinking: Sequence[float], work: Work) -> None:
    """Label everything in a person's queue, by the requests that the page makes."""
    url = office.reach.local_url
    client = LabelerClient.sign_in(url, person, password_of(person), patience=120)
    dice = random.Random(person)
    (dataset,) = [d for d in client.datasets() if d.name == "requests" or d.name == "hurry"]
    path = f"/labelling/queues/{dataset.id}/records?limit=3"
    records = client.request("GET", path)["records"]
    while records:
        time.sleep(dice.uniform(*thinking))
        record, choice = records[0], dice.choice(CHOICES)
        started = time.monotonic()
        client.submit(record["id"], {"choice": choice})
        saved = time.monotonic()
        records = client.request("GET", path)["records"]
        with work.lock:
            work.choices[person, record["a"]["text"][:14]] = choice
            work.saved.append(saved - started)
            work.next_pair.append(time.monotonic() - started)
    client.close()


def summarize(
    office: Office, campaign: Campaign, work: Work, seconds: float
) -> Mapping[str, float]:
    """Return what was measured, in milliseconds."""
    counts = {
        "answers": len(work.choices),
        "lost": office.lost(campaign, work),
        "seconds": round(seconds, 1),
        "next_pair_median_ms": round(1000 * statistics.median(work.next_pair), 1),
        "next_pair_p95_ms": round(1000 * statistics.quantiles(work.next_pair, n=20)[-1], 1),
        "saved_median_ms": round(1000 * statistics.median(work.saved), 1),
        "saved_p95_ms": round(1000 * statistics.quantiles(work.saved, n=20)[-1], 1),
    }
    say(f"  {counts}")
    return counts


def measure(office: Office, pairs: int) -> Mapping[str, Mapping[str, float]]:
    results = {}
    people = [f"browser-{n}" for n in range(5)]
    say(f"five browsers, {pairs} pairs each")
    campaign, work = office.campaign("browsers", people, pairs, len(people)), Work()
    seconds = at_once(people, lambda person: by_browser(office, person, pairs, work))
    results["browsers"] = summarize(office, campaign, work, seconds)
    for name, thinking in (("requests", (2.0, 4.0)), ("hurry", (0.0, 0.0))):
        people = [f"{name}-{n}" for n in range(20)]
        say(f"twenty labellers by requests, {pairs} pairs, thinking {thinking} s")
        campaign, work = office.campaign(name, people, pairs, 3), Work()
        seconds = at_once(
            people, lambda person, t=thinking, w=work: by_requests(office, person, t, w)
        )
        results[name] = summarize(office, campaign, work, seconds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        office = Office(Site(Path(folder) / "site"), Reach(port=free_port()))
        control.up(office.site, office.reach, say)
        try:
            results = measure(office, 20 if chosen.quick else 200)
        finally:
            control.down(office.site)
    print(json.dumps({"load": round(os.getloadavg()[0], 1), **results}))


if __name__ == "__main__":
    main()
