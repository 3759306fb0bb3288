"""What a damaged disk or a small team changes: journals without their end, defaults, training."""

from __future__ import annotations

import json

import pytest

from annotation.campaign.config import WaitConfig
from annotation.campaign.folder import Campaign
from annotation.campaign.items import is_training, training_queue_of
from annotation.campaign.pairs import Pair
from annotation.campaign.pull import labels_of, pull
from annotation.campaign.waiting import wait_for
from plumbline.data.records import user
from plumbline.errors import DataError


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_labels_that_the_journal_lost_are_fetched_again(ground, pairs, better, keep):
    ana = ground.person()
    ground.push(pairs(5), [ana])
    ground.answer(ana, better)
    before = ground.labels()
    journal = ground.folder / "labels.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:keep]))
    with pytest.raises(DataError, match=r"bytes shorter than it once was.*annotate pull"):
        labels_of(ground.campaign)
    found = pull(ground.campaign, ground.site)  # nothing has changed on the server
    assert (found.new, found.lost_bytes > 0) == (5 - keep, True)
    assert labels_of(ground.campaign).labels == before
    assert pull(ground.campaign, ground.site).read == 0  # all is well again


def test_overlap_fits_the_people_there_are_and_push_says_so(ground, pairs):
    people = [ground.person(), ground.person()]
    pushed = ground.push(pairs(4), people, overlap=None)
    assert "each pair gets 2 votes (2 people label; setting overlap)" in pushed.notes
    assert ground.campaign.config.overlap == 2
    again = ground.push(pairs(6), people, overlap=None)  # what was decided stays
    assert not [note for note in again.notes if "each pair" in note]
    assert ground.campaign.config.overlap == 2


def test_a_campaign_with_settings_that_have_no_effect_is_still_read(ground, pairs):
    ground.push(pairs(2), [ground.person()])
    file = ground.folder / "campaign.json"
    state = json.loads(file.read_text())
    state["config"] |= {"repeat_share": 0.0, "repeat_distance": 7}  # accepted once
    file.write_text(json.dumps(state))
    assert Campaign(ground.folder).config.repeat_distance == 20


LESSONS = [
    Pair(f"t-{n}", [user(f"What is {n} + {n}?")], f"It is {2 * n}.", "I do not know.", "a",
         ("The first one is right.",))
    for n in range(3)
]  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_a_training_round_comes_first_and_its_answers_are_no_labels(ground, pairs, better, shared):
    ana, ben = ground.person(), ground.person()
    ground.push(
        pairs(3), [] if shared else [ana, ben], members=[ana, ben] if shared else (),
        training=LESSONS, overlap=2,
    )  # fmt: skip
    queues = [queue for queue in ground.campaign.places if is_training(queue)]
    owners = [None] if shared else [ana, ben]
    assert queues == [training_queue_of(owner) for owner in owners]
    client = ground.client(ana)
    lessons, _ = sorted(client.datasets(), key=lambda d: not d.name.endswith("-training"))
    page = lessons.metadata["plumbline"]["page"]
    assert (page["kind"], len(page["feedback"])) == ("training", 3)
    assert {entry["explanation"] for entry in page["feedback"].values()} == {
        "The first one is right."
    }
    records, _ = client.queue(lessons.id)
    right = {}
    for record in records:
        right[record.fields["response_a"]] = record.fields["response_a"].startswith("It is")
        client.submit(record.id, {"choice": "a"})
    # Another person still gets all of them, also where they share the queue.
    other = ground.client(ben)
    training = next(d for d in other.datasets() if d.name.endswith("-training"))
    assert len(other.queue(training.id)[0]) == 3
    assert ground.labels() == []
    assert labels_of(ground.campaign).counts == {"training": 3}
    for name in (ana, ben):
        client = ground.client(name)
        (dataset,) = [d for d in client.datasets() if not d.name.endswith("-training")]
        for record in client.queue(dataset.id)[0]:
            client.submit(record.id, better(record))
    # Nobody waits for lessons that nobody took.
    found = wait_for(ground.campaign, ground.site, WaitConfig(poll_seconds=0.1))
    assert found.counts == {"training": 3, "vote": 6}
    # Pushed again, nothing is sent twice; the explanation may change.
    again = ground.push(
        pairs(3), [] if shared else [ana, ben], members=[ana, ben] if shared else (),
        training=[LESSONS[0], *LESSONS[1:]], overlap=2,
    )  # fmt: skip
    assert again.sent == 0


def test_the_answer_to_a_lesson_is_about_what_is_shown(ground, pairs):
    ana = ground.person()
    ground.push(pairs(1), [ana], training=LESSONS * 1, overlap=1)
    client = ground.client(ana)
    dataset = next(d for d in client.datasets() if d.name.endswith("-training"))
    feedback = dataset.metadata["plumbline"]["page"]["feedback"]
    stored = ground.site.request("GET", f"/datasets/{dataset.id}/records")["items"]
    for record in stored:
        first = record["fields"]["response_a"].startswith("It is")
        assert feedback[record["external_id"]]["choice"] == ("a" if first else "b")


def test_a_lesson_without_an_answer_is_refused(ground, pairs):
    with pytest.raises(DataError, match="training pairs have no answer"):
        ground.push(pairs(2), [ground.person()], training=pairs(1, start=7))
