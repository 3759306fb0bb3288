"""Waiting for labels: by asking, by being called, and with simulated people at work."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from annotation.argilla.api import Argilla, DatasetProgress
from annotation.argilla.client import Connection
from annotation.argilla.labeler_client import LabelerClient, ShownRecord
from annotation.campaign import simulated_labelers, waiting
from annotation.campaign.collect import collect_labels
from annotation.campaign.config import CampaignConfig, WaitConfig
from annotation.campaign.connect import SiteConfig
from annotation.campaign.folder import Campaign
from annotation.campaign.items import SHARED, queue_of
from annotation.campaign.pull import labels_of
from annotation.campaign.push import push_adjudication
from annotation.campaign.simulated_labelers import (
    Credentials,
    SimulatedLabeler,
    SimulatedTeam,
    create_accounts,
)
from annotation.campaign.waiting import wait_for, waiting_in
from annotation.campaign.webhook import Listener, is_signed
from annotation.gold_answers import read_gold
from annotation.sources.config import LabelerConfig
from annotation.sources.simulated_labels import probability_of_a
from plumbline.data.labels import read_labels
from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import ConfigError
from plumbline.runs.artifacts import Artifact, Manifest, Store
from plumbline.runs.run import Run

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Length:
    """A utility that a test can work out: a hundredth of a point a character."""

    name = "length"

    def score(self, prompts, responses):
        return [len(text) / 100 for text in responses]


def headers(body, at=None, secret=SECRET):
    at = at or datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body),
    }


def test_calls_must_be_signed_with_the_secret_and_fresh():
    body = '{"type": "response.created"}'
    assert is_signed(SECRET, body.encode(), headers(body))
    assert not is_signed(SECRET, b'{"type": "other"}', headers(body))
    assert not is_signed(SECRET, body.encode(), {})
    assert not is_signed(SECRET, body.encode(), headers(body, secret="whsec_" + "A" * 32))
    for minutes in (-6, 6):
        old = datetime.now(UTC) + timedelta(minutes=minutes)
        assert not is_signed(SECRET, body.encode(), headers(body, old))
    assert not is_signed(SECRET, body.encode(), headers(body) | {"webhook-signature": "v1,x"})


def test_a_server_elsewhere_needs_an_address_to_call():
    site = Argilla(Connection("https://labels.example.org", "key"))
    with pytest.raises(ConfigError, match="with --webhook-url"):
        Listener(site, "c")


def test_a_listener_is_called_and_gone_afterwards(ground, pairs):
    ana = ground.person()
    ground.push(pairs(3), [ana])
    with Listener(ground.site, ground.campaign.id) as listener:
        (hook,) = [h for h in ground.site.webhooks() if ground.campaign.id in h.description]
        forged = httpx.post(hook.url, content=b"{}", headers=headers("{}"), trust_env=False)
        elsewhere = httpx.post(f"{hook.url}x", content=b"{}", trust_env=False)
        assert (forged.status_code, elsewhere.status_code, listener.refused) == (401, 404, 2)
        assert not listener.wait(0)
        ground.answer(ana, count=1)
        assert listener.wait(30)
        # Another listener takes the place of one that was killed.
        with Listener(ground.site, ground.campaign.id):
            found = [h.id for h in ground.site.webhooks() if ground.campaign.id in h.description]
            assert len(found) == 1 and hook.id not in found
    assert not [h for h in ground.site.webhooks() if ground.campaign.id in h.description]


@pytest.mark.parametrize("webhook", [False, True])
def test_waiting_ends_when_there_is_enough(ground, pairs, better, webhook, monkeypatch):
    monkeypatch.setattr(waiting, "_PULL_SECONDS", 3600)  # it must see that there is enough
    ana = ground.person()
    ground.push(pairs(6), [ana], repeat_share=0.2, repeat_distance=2)
    # With a listener, an hour between two looks would be too long: it must be called.
    config = WaitConfig(enough=4, poll_seconds=600 if webhook else 0.2)
    answering = threading.Timer(0.5, ground.answer, (ana, better), {"count": 6})
    answering.start()
    if webhook:
        with Listener(ground.site, ground.campaign.id) as listener:
            found = wait_for(ground.campaign, ground.site, config, listener=listener)
    else:
        found = wait_for(ground.campaign, ground.site, config)
    answering.join()
    assert found.counts["vote"] >= 4
    ground.answer(ana, better)
    everything = wait_for(ground.campaign, ground.site, WaitConfig(poll_seconds=0.2))
    assert everything.counts == {"vote": 6, "repeat": 1}
    again = wait_for(ground.campaign, ground.site, WaitConfig(enough=100))
    assert len(again.labels) == 7  # nothing is left to wait for


@pytest.mark.parametrize("enough", [2, None])
def test_a_second_round_waits_for_its_own_pairs_and_for_no_others(ground, pairs, better, enough):
    ana = ground.person()
    ground.push(pairs(4), [ana])
    ground.answer(ana, better, count=3)  # one of the first round is left open
    ground.push(pairs(7), [ana])

    def second_round():
        client = ground.client(ana)
        for record in ground.queue(ana)[1:]:
            client.submit(record.id, better(record))

    answering = threading.Timer(0.5, second_round)
    answering.start()
    new = {f"p-{number}" for number in range(4, 7)}
    config = WaitConfig(enough=enough, poll_seconds=0.1)
    found = wait_for(ground.campaign, ground.site, config, among=new)
    answering.join()
    assert sum(label.pair_id in new for label in found.labels) >= (enough or 3)


def test_a_senior_labeler_is_waited_for_alone(ground, pairs, better):
    ana, eva = ground.person(), ground.person()
    ground.push(pairs(3), [ana])
    push_adjudication(ground.folder, ground.site, eva, pairs(2))
    ground.answer(eva, lambda record: {"choice": "tie"})
    queues = [queue_of(eva, adjudication=True)]
    found = wait_for(ground.campaign, ground.site, WaitConfig(), queues=queues)
    assert found.counts == {"adjudication": 2}


def test_waiting_ends_when_what_is_waited_for_fails(ground, pairs):
    ana = ground.person()
    ground.push(pairs(2), [ana])

    def fails():
        raise RuntimeError("nobody is coming")

    with pytest.raises(RuntimeError, match="nobody is coming"):
        wait_for(ground.campaign, ground.site, WaitConfig(), check=fails)


def test_what_is_discarded_waits_for_somebody_else_or_for_nobody():
    done = DatasetProgress(records=10, completed=4, submitted={"ana": 4}, discarded={"ana": 2})
    assert waiting_in(queue_of("ana"), 10, done) == 4
    assert waiting_in(SHARED, 10, done) == 6


CHOICE_ALONE = {"choice": "label_selection"}


def labeler(config, name="sim"):
    account = Credentials(name, "x")
    questions = CampaignConfig()
    return SimulatedLabeler("http://127.0.0.1:9", account, config, questions, Length(), 0, "c")


def shown(a, b, turn="How much?"):
    return ShownRecord("r", {"prompt": [user(turn)], "response_a": a, "response_b": b}, "pending")


def test_simulated_people_judge_by_the_texts_as_the_model_says():
    config = LabelerConfig(name="sim", temperature=0.5)
    chosen = Counter()
    for number in range(600):
        long, short = "x" * 100 + str(number), "x" * 50 + str(number)
        swapped = number % 2
        record = shown(short, long) if swapped else shown(long, short)
        choice = labeler(config).judge(record, CHOICE_ALONE)["choice"]
        chosen[(choice == "a") != bool(swapped)] += 1
    expected = probability_of_a(config, (1.0, "x"), (0.5, "x"))
    assert chosen[True] / 600 == pytest.approx(expected, abs=0.06)


def test_simulated_people_judge_anew_what_they_see_again_and_do_not_mind_the_side():
    config = LabelerConfig(name="sim", temperature=1.0)
    one = labeler(config)
    record, mirrored = shown("x" * 60, "y" * 50), shown("y" * 50, "x" * 60)
    often = [one.judge(record, CHOICE_ALONE)["choice"] for _ in range(60)]
    assert len(set(often)) == 2
    again = labeler(config)
    other = [again.judge(mirrored, CHOICE_ALONE)["choice"] for _ in range(60)]
    assert [{"a": "b", "b": "a"}[choice] for choice in other] == often


def test_simulated_people_answer_what_is_asked():
    config = LabelerConfig(name="sim", temperature=0.01)
    record = shown("x" * 90, "x")
    assert labeler(config).judge(record, CHOICE_ALONE) == {"choice": "a"}
    kinds = {**CHOICE_ALONE, "strength": "label_selection", "rationale": "text"}
    # Datasets made by earlier versions ask for a rating.
    old = labeler(config).judge(record, kinds | {"strength": "rating"})
    assert old["strength"] == 3
    assert labeler(config).judge(record, kinds) == {
        "choice": "a",
        "strength": "3",
        "rationale": "It reads better to me.",
    }


def test_campaigns_that_begin_at_a_time_keep_all_passwords(tmp_path, monkeypatch):
    """The second one begins while the first writes."""
    site = SimpleNamespace(url="here", users=lambda: [], create_user=lambda *_: None)
    write, done = simulated_labelers.write_private, {}

    def begin(name):
        done[name] = create_accounts(site, tmp_path, [name, "both"])

    second = threading.Thread(target=begin, args=("bob",))

    def write_as_another_begins(*arguments):
        if not second.ident:
            second.start()
            second.join(0.3)
        write(*arguments)

    monkeypatch.setattr(simulated_labelers, "write_private", write_as_another_begins)
    begin("ana")
    second.join(30)
    kept = json.loads((tmp_path / "simulated.json").read_text())
    assert kept == {each.name: each.password for made in done.values() for each in made}
    assert set(kept) == {"ana", "bob", "both"} and done["ana"][1] == done["bob"][1]


def test_simulated_people_do_not_take_a_person_s_name(ground, tmp_path):
    ana = ground.person()
    with pytest.raises(ConfigError, match=f"{ana} can sign in to"):
        create_accounts(ground.site, tmp_path, [ana])
    name = ground.server.fresh("sim")
    (first,) = create_accounts(ground.site, tmp_path, [name])
    assert create_accounts(ground.site, tmp_path, [name]) == [first]
    assert first.password not in repr(first)
    assert (tmp_path / "simulated.json").stat().st_mode & 0o777 == 0o600
    LabelerClient.sign_in(ground.server.url, name, first.password, patience=5)


def test_what_stops_a_simulated_person_is_raised(ground):
    lost = labeler(LabelerConfig(name="sim"))
    lost.patience = 0.1
    with pytest.raises(Exception, match="does not answer"), SimulatedTeam([lost]) as force:
        force.join()
        force.check()


@pytest.fixture
def pairs_artifact(tmp_path, pairs):
    """Twenty pairs, of which five have a known answer."""
    rows = [
        {
            "pair_id": p.id,
            "prompt": p.prompt,
            "a": [assistant(p.a)],
            "b": [assistant(p.b)],
            "answer": "b" if n < 5 else None,
        }
        for n, p in enumerate(pairs(20))
    ]
    folder = tmp_path / "new"
    write_dataset(folder, {"train": rows}, kind="prompts", title="Pairs", description="")
    manifest = Manifest(
        kind="pairs", id="pairs-1", schema_version=1, stage="test", arguments={}, inputs={},
        seed=None, data_seed=0, metrics={}, versions={}, machine={}, seconds=0.0,
        peak_memory_bytes=0, files={},
    )  # fmt: skip
    (tmp_path / "store").mkdir()
    return Store(tmp_path / "store").publish(folder, manifest)


@pytest.mark.parametrize("own", [True, False])
def test_a_stage_asks_simulated_people_through_the_server(
    own, argilla_site, tmp_path, pairs_artifact
):
    names = [argilla_site.fresh("sim") for _ in range(3)]
    config = CampaignConfig(
        name=argilla_site.fresh("stage"),
        people=tuple(names) if own else (),
        overlap=2,
        gold_share=0.1,
        repeat_share=0.2,
        repeat_distance=3,
    )
    run = Run(tmp_path / "runs", "run", "recipe", CampaignConfig(), isolate=False)
    arguments = {
        "config": config,
        "site": SiteConfig(home=argilla_site.home),
        "wait": WaitConfig(poll_seconds=0.2),
        "pairs": pairs_artifact,
        "labelers": [LabelerConfig(name=name, temperature=0.01) for name in names],
        "utility": Length(),
    }

    # A stage's identity is its arguments', so the utility is handed over as a recipe would.
    from plumbline.runs.calls import defer

    made = run.make("labels", collect_labels, **arguments | {"utility": defer(Length)})
    assert isinstance(made, Artifact)
    labels = read_labels(made.path)
    counts = Counter(label.purpose for label in labels)
    assert counts["vote"] >= (20 - 2) * 2 - 4
    assert made.metrics["vote"] == counts["vote"]
    assert {label.source for label in labels} == {"argilla"}
    # "Well, that one …" is longer than "The better answer …": b, whichever side it stood on.
    assert {label.choice for label in labels} == {"b"}
    assert {label.shown_first for label in labels} == {"a", "b"}
    assert set(read_gold(made.path).values()) == {"b"}
    assert made.metrics["gold_accuracy"] == 1.0
    folder = argilla_site.home / "campaigns" / config.name
    assert len(labels_of(Campaign(folder)).labels) >= len(labels)
    assert (
        run.make("labels", collect_labels, **arguments | {"utility": defer(Length)}).id == made.id
    )
    manifest = (made.path / "manifest.json").read_text()
    assert argilla_site.api_key not in manifest and str(argilla_site.home) not in manifest
