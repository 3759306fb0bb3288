"""Events that the site tells listeners of."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from annotation.server.embedded.plumbline_site import listeners, tasks


class Listener:
    """A listener on this machine, which may refuse the first that it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.refusals = 0
        self.hold = threading.Event()
        self.hold.set()
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                listener.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
                listener.hold.wait(20)
                is_refused = len(listener.heard) <= listener.refusals
                self.send_response(503 if is_refused else 200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/events"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def told(self, number=1):
        """Wait for so many; return all."""
        deadline = time.monotonic() + 20
        while len(self.heard) < number and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.heard) >= number
        return [json.loads(body) for _, body in self.heard]


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.hold.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def hook(argilla_site, listener):
    """Make a webhook, and end it with the test."""
    made = []

    def make(*events):
        body = {"url": listener.url, "events": list(events), "description": "a test"}
        made.append(argilla_site.request("POST", "/webhooks", json=body))
        return made[-1]

    yield make
    for one in made:
        argilla_site.request("DELETE", f"/webhooks/{one['id']}")


@pytest.fixture
def queue(argilla_site):
    site = argilla_site
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    dataset = site.dataset(workspace)
    return site, person, site.texts(dataset, *"abcdef")


def _of(told, record):
    return [event for event in told if event["data"].get("record", {}).get("id") == record]


def test_an_answer_is_told_signed(queue, hook, listener):
    site, person, records = queue
    # Nobody listens yet, and that is known by now: a webhook takes effect all the same.
    site.submit(person, records[0], better="a")
    made = hook("response.created")
    answer = site.submit(person, records[1], better="b").json()
    told = listener.told()
    (event,) = _of(told, records[1])
    assert event["type"] == "response.created"
    assert event["data"]["id"] == answer["id"]
    assert event["data"]["values"]["better"]["value"] == "b"
    assert not _of(told, records[0])
    # https://www.standardwebhooks.com: the HMAC of id, time and body under the secret.
    headers, body = listener.heard[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(made["secret"]), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert person["api_key"].encode() not in body
    assert site.api_key.encode() not in body


def test_a_listener_that_fails_is_told_again(queue, hook, listener):
    site, person, records = queue
    listener.refusals = 1
    hook("response.created")
    site.submit(person, records[2], better="a")
    first, second = _of(listener.told(2), records[2])
    assert first == second
    assert "notify failed: HTTPStatusError" in site.site.log.read_text()
    assert listener.url not in site.site.log.read_text()


def test_labelers_do_not_wait_for_a_slow_listener(queue, hook, listener):
    site, person, records = queue
    hook("response.created")
    listener.hold.clear()  # it answers only after all that follows
    assert site.submit(person, records[3], better="a").status_code == 201
    assert site.submit(person, records[4], better="a").status_code == 201
    ping = hook("dataset.deleted")
    assert (
        site.request("POST", f"/webhooks/{ping['id']}/ping") is None
    )  # as it comes, all would wait
    assert site.request("GET", "/me")["username"] == "owner"
    listener.hold.set()
    told = listener.told(3)
    assert [event["type"] for event in told].count("ping") == 1
    assert _of(told, records[3])
    assert _of(told, records[4])


def test_a_webhook_that_is_switched_off_hears_nothing(queue, hook, listener):
    site, person, records = queue
    made = hook("response.created", "record.completed")
    site.request("PATCH", f"/webhooks/{made['id']}", json={"enabled": False})
    site.submit(person, records[0], better="a")
    site.request("PATCH", f"/webhooks/{made['id']}", json={"enabled": True})
    site.submit(person, records[5], better="a")
    told = listener.told(2)
    assert {event["type"] for event in told} == {"response.created", "record.completed"}
    assert records[0] not in json.dumps(told)


def test_a_change_of_the_overlap_tells_of_the_records_it_completes(argilla_site, hook, listener):
    site = argilla_site
    workspace = site.workspace()
    (person,) = site.crowd(workspace, 1)
    dataset = site.dataset(workspace, overlap=2)
    one, _ = site.texts(dataset, "one", "two")
    site.submit(person, one, better="a")
    hook("record.completed")
    for overlap in (1, 1):  # the second changes nothing, and is nothing to tell of
        distribution = {"strategy": "overlap", "min_submitted": overlap}
        site.request("PATCH", f"/datasets/{dataset}", json={"distribution": distribution})
        assert [event["data"]["id"] for event in listener.told()] == [one]


# Without a server: what is skipped, and what is tried again.


class Webhooks:
    """Argilla's module of that name."""

    def __init__(self) -> None:
        self.enabled: list[str] = []
        self.before_answer = None

    async def list_enabled_webhooks(self, _):
        found = list(self.enabled)
        if self.before_answer is not None:
            await self.before_answer()
        return found

    async def create_webhook(self, _, name):
        self.enabled.append(name)

    async def update_webhook(self, _, name):
        self.enabled.remove(name)

    async def delete_webhook(self, _, name):
        self.enabled.remove(name)


class Module:
    """Argilla's module of events."""

    built = 0

    async def build(self, *_):
        self.built += 1
        return "an event"


@pytest.fixture
def events(monkeypatch):
    monkeypatch.setattr(listeners, "_listeners", listeners._Listeners())
    webhooks, module = Webhooks(), Module()
    listeners.skip_events_without_listeners(webhooks, module, "build")
    return webhooks, module


def test_events_that_nobody_hears_are_not_built(events):
    webhooks, module = events

    async def story():
        for _ in range(3):
            assert await (await module.build(None, "e", "s")).notify(None) == []
        assert module.__class__.built == module.built == 0
        await webhooks.create_webhook(None, "x")
        assert await module.build(None, "e", "s") == "an event"
        await webhooks.update_webhook(None, "x")
        await module.build(None, "e", "s")
        assert module.built == 1

    asyncio.run(story())


def test_a_webhook_made_while_others_are_read_is_not_missed(events):
    webhooks, module = events

    async def story():
        made = []

        async def meanwhile():
            if not made:
                made.append("x")
                await webhooks.create_webhook(None, "x")

        webhooks.before_answer = meanwhile
        await module.build(None, "e", "s")  # had read before it was made
        assert await module.build(None, "e", "s") == "an event"

    asyncio.run(story())


def test_a_job_is_tried_four_times(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    clock = SimpleNamespace(sleep=sleep, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(tasks, "asyncio", clock)
    attempts = []

    async def work(name):
        attempts.append(name)
        if len(attempts) < 3 or name == "never":
            raise RuntimeError("no")

    async def run(name):
        attempts.clear()
        waits.clear()
        assert tasks.in_process(work)(name).id
        while tasks._running:
            await asyncio.gather(*tasks._running)

    asyncio.run(run("third time"))
    assert (len(attempts), waits) == (3, [1, 10])
    asyncio.run(run("never"))
    assert (len(attempts), waits) == (4, [1, 10, 60])
