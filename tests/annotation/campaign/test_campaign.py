"""Campaigns on a real server: pairs out, labels back, whatever is killed in between."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from annotation.argilla import api as argilla_module
from annotation.argilla.api import Argilla
from annotation.argilla.client import Connection, RefusedError, ServerError
from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import pseudonym, queue_of
from annotation.campaign.pairs import Pair
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.push import push, push_adjudication
from plumbline.data.labels import Label
from plumbline.data.records import user
from plumbline.errors import BusyError, ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]


def test_what_was_chosen_comes_back_about_the_pair(ground, pairs, better):
    ana = ground.person()
    done = ground.push(pairs(12), [ana], aspects=("helpful",))
    assert (done.sent, done.items, done.pairs) == (12, 12, 12)
    ground.answer(ana, lambda r: better(r) | {"aspect_helpful": "b", "flags": ["unsafe"]})
    labels = ground.labels()
    assert {label.choice for label in labels} == {"a"}
    assert Counter(label.shown_first for label in labels) == {"a": 6, "b": 6}
    # On the page B was always more helpful: that is the pair's b where a was shown first.
    assert all(
        label.aspects == {"helpful": "b" if label.shown_first == "a" else "a"} for label in labels
    )
    (user_id,) = {a.user_id for a in ground.campaign.ledger().current()}
    assert ground.campaign.people() == {user_id: ana}
    (example,) = [label for label in labels if label.pair_id == "p-3"]
    assert example == Label(
        pair_id="p-3",
        annotator=pseudonym(ground.campaign.secret, user_id),
        source="argilla",
        choice="a",
        created_at=example.created_at,
        shown_first=example.shown_first,
        rationale="It is the better one.",
        strength=3,
        aspects=example.aspects,
        flags=("unsafe",),
    )
    assert example.created_at.endswith("+00:00")
    assert not any(ana in repr(label) for label in labels)


def test_a_conversation_is_shown_as_one_and_nothing_tells_what_an_item_is_for(ground, pairs):
    ana = ground.person()
    gold = [
        Pair("gold", [user("Two and two?")], "Four, to be exact.", "I think it is 5", answer="a")
    ]
    ground.push(pairs(20), [ana], gold, gold_share=0.05, repeat_share=0.2, repeat_distance=5)
    items = {item.id: item for item in ground.campaign.items()}
    assert Counter(item.purpose for item in items.values()) == {"vote": 20, "repeat": 4, "gold": 1}
    (place,) = ground.campaign.places.values()
    api = ground.client(ana)
    seen = api.request("POST", f"/me/datasets/{place.dataset_id}/records/search?limit=100", json={})
    records = [hit["record"] for hit in seen["items"]]
    assert len(records) == 25
    by_purpose = {
        items[r["external_id"]].purpose: {k: v for k, v in r.items() if k != "fields"}
        for r in records
    }
    # Whatever the page gets has the same keys, and the same values but for ids and times.
    told = {
        json.dumps({k: v for k, v in r.items() if k not in ("id", "external_id", "inserted_at",
                                                             "updated_at")}, sort_keys=True)
        for r in by_purpose.values()
    }  # fmt: skip
    assert len(by_purpose) == 3
    assert len(told) == 1
    assert [set(message) for message in records[0]["fields"]["prompt"]] == [{"role", "content"}] * 3
    assert [m["role"] for m in records[0]["fields"]["prompt"]] == ["user", "assistant", "user"]
    stored = json.dumps(records) + json.dumps(api.request("GET", f"/datasets/{place.dataset_id}"))
    for word in ('"gold', "repeat", '"p-', "shown_first", "adjudic"):
        assert word not in stored


def test_people_see_pairs_in_the_order_decided_and_only_their_own(ground, pairs):
    ana, ben = ground.person(), ground.person()
    ground.push(pairs(15), [ana, ben], overlap=2, repeat_share=0.3, repeat_distance=5)
    for name in (ana, ben):
        decided = [i.id for i in ground.campaign.items() if i.queue == queue_of(name)]
        place = ground.campaign.places[queue_of(name)]
        external = {
            record["id"]: record["external_id"]
            for record in ground.site.request("GET", f"/datasets/{place.dataset_id}/records")[
                "items"
            ]
        }
        assert [external[record.id] for record in ground.queue(name)] == decided
    other = ground.campaign.places[queue_of(ben)].dataset_id
    with pytest.raises(RefusedError) as refused:
        ground.client(ana).queue(other)
    assert refused.value.status == 403


def test_a_shared_queue_gives_every_pair_to_as_many_people(ground, pairs, better):
    names = [ground.person() for _ in range(3)]
    config = CampaignConfig(name=ground.name, overlap=2, gold_share=0, repeat_share=0)
    done = push(ground.folder, ground.site, config, pairs(8), members=names)
    assert (done.sent, done.notes) == (8, ())
    for name in names:
        ground.answer(name, better)
    votes = Counter(label.pair_id for label in ground.labels())
    assert votes == {f"p-{n}": 2 for n in range(8)}
    assert ground.queue(names[2]) == []


def test_an_empty_workspace_is_told(ground, pairs):
    done = ground.push(pairs(2))
    assert "add people with" in done.notes[0]


def test_pushing_again_sends_nothing_twice_and_more_pairs_extend(ground, pairs):
    ana = ground.person()
    ground.push(pairs(5), [ana])
    before = ground.campaign.items()
    again = ground.push(pairs(5), [ana])
    assert (again.sent, again.pairs) == (0, 0)
    assert ground.campaign.items() == before
    more = ground.push(pairs(8), [ana])
    assert (more.sent, more.pairs) == (3, 3)
    assert ground.campaign.items()[:5] == before
    assert len(ground.queue(ana)) == 8


def test_gold_drawn_of_the_pairs_stays_gold_when_pushed_again(ground, pairs, better):
    ana = ground.person()
    known = [Pair(p.id, p.prompt, p.a, p.b, answer="a") for p in pairs(30)]
    first = ground.push(known, [ana], gold_share=0.1)
    assert first.pairs == 27
    again = ground.push(known, [ana], gold_share=0.1)
    assert (again.sent, again.pairs, again.items) == (0, 0, first.items)
    ground.answer(ana, better)
    found = labels_of(ground.campaign) if ground.labels() else None
    gold = [label for label in found.labels if label.purpose == "gold"]
    assert {label.pair_id for label in gold} == set(found.gold)
    assert set(found.gold.values()) == {"a"}


def test_alike_responses_are_left_out_and_listed(ground, pairs):
    ana = ground.person()
    same = Pair("same", [user("Hello?")], "Yes, I am here.", "yes, I am  HERE.")
    done = ground.push([*pairs(2), same], [ana])
    assert done.left_out == {"has responses that are the same but for case and white space": 1}
    (row,) = ground.campaign.left_out()
    assert (row["row"], row["record"]["pair_id"]) == (3, "same")
    ground.push([*pairs(2), same], [ana])
    assert len(ground.campaign.left_out()) == 1
    with pytest.raises(DataError, match=r"nothing to label: of 1 rows, 0 are pairs"):
        replace(ground, folder=ground.folder.with_name("none")).push([same], [ana])


def test_changes_that_would_mix_answers_are_refused(ground, pairs):
    ana, ben = ground.person(), ground.person()
    ground.push(pairs(3), [ana])
    with pytest.raises(ConfigError, match="strength from True to False"):
        ground.push(pairs(3), [ana], strength=False)
    with pytest.raises(ConfigError, match="people from"):
        ground.push(pairs(3))
    other = [Pair("p-1", [user("Something else?")], "Yes, indeed.", "Not at all, no")]
    with pytest.raises(DataError, match="Pair 1 has the pair_id 'p-1', under which"):
        ground.push(other, [ana])
    ground.push(pairs(6), [ana, ben])  # one more person is no trouble
    assert len(ground.queue(ben)) in (1, 2)
    elsewhere = replace(ground, folder=ground.folder.with_name("elsewhere"))
    with pytest.raises(ConfigError, match="does not belong to this campaign"):
        elsewhere.push(pairs(3), [ana])


def test_guidelines_are_on_the_page_and_can_be_renewed(ground, tmp_path, pairs, better):
    ana = ground.person()
    ground.push(pairs(2), [ana])
    (place,) = ground.campaign.places.values()
    page = lambda: ground.site.request("GET", f"/datasets/{place.dataset_id}")["guidelines"]  # noqa: E731
    assert page().startswith("# Which response is better?")
    (tmp_path / "page.md").write_text("Be fair.")
    ground.push(pairs(2), [ana], guidelines=tmp_path / "page.md")
    assert page() == "Be fair."


def test_unknown_people_and_workspaces_are_named_before_anything_is_decided(ground, pairs):
    ana = ground.person()
    with pytest.raises(ConfigError, match=rf"no user '{ana}x' \(did you mean '{ana}'"):
        ground.push(pairs(2), [f"{ana}x"])
    with pytest.raises(ConfigError, match=r"no workspace 'nowhere'.*There are:"):
        ground.push(pairs(2), workspace="nowhere")
    assert not ground.folder.exists()


def test_bad_keys_and_silent_servers_are_told_at_once(ground, pairs):
    config = CampaignConfig(name=ground.name)
    wrong = Argilla(Connection(ground.server.url, "wrong-key"))
    with pytest.raises(RefusedError, match="does not know this API key"):
        push(ground.folder, wrong, config, pairs(2))
    silent = Argilla(Connection("http://127.0.0.1:9", "key"), patience=1)
    with pytest.raises(ServerError, match="plumbline annotate up"):
        push(ground.folder, silent, config, pairs(2))
    ana = ground.server.person()
    annotator = Argilla(Connection(ground.server.url, ana["api_key"]))
    with pytest.raises(RefusedError, match="Campaigns need the owner's API key"):
        push(ground.folder, annotator, CampaignConfig(name=ground.name), pairs(2))


def test_a_folder_is_its_owner_s_alone_and_holds_no_key(ground, pairs, better):
    ana = ground.person()
    ground.push(pairs(3), [ana])
    ground.answer(ana, better)
    ground.labels()
    assert ground.folder.stat().st_mode & 0o777 == 0o700
    assert (ground.folder / "secret").stat().st_mode & 0o777 == 0o600
    for file in ground.folder.iterdir():
        assert ground.server.api_key not in file.read_text()
    assert ground.campaign.secret.hex() not in (ground.folder / "campaign.json").read_text()


def test_an_edit_is_a_later_version_and_what_is_discarded_is_counted_apart(ground, pairs, better):
    ana = ground.person()
    ground.push(pairs(4), [ana])
    records = ground.queue(ana)
    desk = ground.client(ana)
    ids = [desk.submit(record.id, {"choice": "tie", "strength": "2"}) for record in records[:3]]
    desk.submit(records[3].id, {}, "discarded")
    assert pull(ground.campaign, ground.site).new == 4
    assert [label.choice for label in labels_of(ground.campaign).labels] == ["tie"] * 3
    assert labels_of(ground.campaign).counts["strength_of_no_preference"] == 3
    first = ground.campaign.ledger().versions()
    desk.submit(records[0].id, {"choice": "a"})
    desk.submit(records[1].id, {"choice": "a"}, "discarded")
    desk.submit(records[2].id, {"choice": "a"}, "draft")
    found = pull(ground.campaign, ground.site)
    assert (found.new, found.changed, found.gone) == (0, 3, 0)
    labels = labels_of(ground.campaign)
    assert labels.counts == {"vote": 1, "discarded": 2, "taken_back": 1}
    (changed,) = labels.labels
    (item,) = [item for item in ground.campaign.items() if item.pair_id == changed.pair_id]
    assert changed.choice == item.shown_first  # "A is better"
    kept = {versions[0].id: versions for versions in ground.campaign.ledger().versions()}
    assert all(kept[versions[0].id][0] == versions[0] for versions in first)
    assert len(kept[ids[0]]) == 2


def test_a_pull_with_nothing_new_reads_nothing_and_a_pull_again_adds_nothing(ground, pairs, better):
    ana, ben = ground.person(), ground.person()
    ground.push(pairs(6), [ana, ben])
    ground.answer(ana, better)
    assert pull(ground.campaign, ground.site).read == 2
    journal = (ground.folder / "labels.jsonl").read_bytes()
    assert pull(ground.campaign, ground.site).read == 0
    assert pull(ground.campaign, ground.site, everything=True).new == 0
    assert (ground.folder / "labels.jsonl").read_bytes() == journal
    ground.answer(ben, better)
    found = pull(ground.campaign, ground.site)
    assert (found.read, found.new) == (1, 3)


def test_all_pages_are_pulled(ground, monkeypatch, pairs, better):
    monkeypatch.setattr(argilla_module, "PULL_PAGE", 7)
    ana = ground.person()
    ground.push(pairs(30), [ana])
    acknowledged = ground.answer(ana, better)
    ground.labels()
    assert {answer.id for answer in ground.campaign.ledger().current()} == set(acknowledged)


def test_the_first_answer_is_the_vote_whichever_was_meant_to_come_first(ground, pairs):
    ana = ground.person()
    ground.push(pairs(4), [ana], repeat_share=1.0, repeat_distance=2)
    items = {item.id: item for item in ground.campaign.items()}
    (place,) = ground.campaign.places.values()
    desk = ground.client(ana)
    records = ground.site.request("GET", f"/datasets/{place.dataset_id}/records")["items"]
    for record in reversed(records):  # as somebody who pages backwards
        purpose = items[record["external_id"]].purpose
        desk.submit(record["id"], {"choice": "tie" if purpose == "repeat" else "both_bad"})
    labels = ground.labels()
    again = {item.pair_id for item in items.values() if item.purpose == "repeat"}
    assert len(again) >= 2
    for label in labels:
        if label.pair_id in again:
            assert label.purpose == ("vote" if label.choice == "tie" else "repeat")
        else:
            assert label.purpose == "vote"


def test_labels_stay_when_their_person_is_deleted(ground, pairs, better):
    ana = ground.server.person()
    ground.push(pairs(3), [ana["username"]])
    ground.answer(ana["username"], better)
    before = ground.labels()
    ground.server.request("DELETE", f"/users/{ana['id']}")
    found = pull(ground.campaign, ground.site, everything=True)
    assert (found.gone, found.new) == (3, 0)
    assert labels_of(ground.campaign).labels == before


def test_answers_to_what_somebody_else_put_there_are_counted(ground, pairs):
    ana = ground.person()
    ground.push(pairs(2), [ana])
    (place,) = ground.campaign.places.values()
    fields = {"prompt": [user("Hi")], "response_a": "x", "response_b": "y"}
    ground.site.send(place.dataset_id, [("a-stranger", fields)])
    ground.answer(ana)
    assert len(ground.labels()) == 2
    assert labels_of(ground.campaign).counts["not_of_this_campaign"] == 1


def test_a_dataset_that_is_gone_is_named_and_its_labels_are_safe(ground, pairs):
    ana = ground.person()
    ground.push(pairs(2), [ana])
    ground.answer(ana)
    assert len(ground.labels()) == 2
    (place,) = ground.campaign.places.values()
    ground.server.request("DELETE", f"/datasets/{place.dataset_id}")
    with pytest.raises(DataError, match="does not show the dataset"):
        pull(ground.campaign, ground.site)
    with pytest.raises(DataError, match="is not on"):
        ground.push(pairs(3), [ana])
    assert len(labels_of(ground.campaign).labels) == 2


def test_two_pulls_at_once_do_not_get_into_each_other_s_way(ground, pairs):
    ana = ground.person()
    ground.push(pairs(2), [ana])
    with ground.campaign.lock("pull"), pytest.raises(BusyError, match="begun to pull"):
        pull(ground.campaign, ground.site)
    with ground.campaign.lock("push"):
        pull(ground.campaign, ground.site)


def test_a_senior_labeler_sees_the_votes_and_decides_beside_them(ground, pairs, better):
    ana, ben, eva = (ground.person() for _ in range(3))
    ground.push(pairs(6), [ana, ben], overlap=2)
    ground.answer(ana, better)
    ground.answer(ben, lambda r: {"choice": "tie", "rationale": "Both will do."})
    votes = ground.labels()
    queue = [
        Pair(p.id, p.prompt, p.a, p.b, reasons=("disagreement",))
        for p in (pairs(6)[4], pairs(6)[1])
    ]
    with pytest.raises(ConfigError, match=f"no user '{eva}x'"):
        push_adjudication(ground.folder, ground.site, f"{eva}x", queue)
    done = push_adjudication(ground.folder, ground.site, eva, queue)
    assert (done.sent, done.pairs) == (2, 2)
    assert push_adjudication(ground.folder, ground.site, eva, queue).sent == 0
    records = ground.queue(eva)
    assert [r.fields["prompt"][-1]["content"] for r in records] == [
        "What does number 4 cost?", "What does number 1 cost?",
    ]  # fmt: skip
    for record in records:
        first, *rest = record.fields["votes"].splitlines()
        assert first == "You see this pair because the votes disagree."
        standing = "A" if record.fields["response_a"].startswith("The better") else "B"
        assert any(f"{standing} is better (much)" in line for line in rest)
        assert any("About the same: “Both will do.”" in line for line in rest)
    ground.answer(eva, lambda r: {"choice": better(r)["choice"]})
    labels = ground.labels()
    assert [label for label in labels if label.purpose == "vote"] == votes
    decided = [label for label in labels if label.purpose == "adjudication"]
    assert {label.pair_id: label.choice for label in decided} == {"p-4": "a", "p-1": "a"}
    again = ground.push(pairs(6), [ana, ben], overlap=2)
    assert (again.sent, again.pairs) == (0, 0)
