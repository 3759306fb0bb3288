"""How far a campaign has come: by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from annotation.campaign.argilla import Answer
from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import Item, queue_of
from annotation.campaign.pairs import Pair
from annotation.campaign.progress import Pace, pace_of, progress_of
from annotation.campaign.state import Campaign, Place
from plumbline.records import user

NINE = datetime.fromisoformat("2026-01-05T09:00:00+00:00")


def at(minutes):
    return (NINE + timedelta(minutes=minutes)).isoformat()


def answer(item, who, minutes, choice="a", status="submitted"):
    time = at(minutes)
    return Answer(f"{who}-{item}", item, f"u-{who}", status, {"choice": choice}, time, time)


def test_pace_leaves_breaks_out():
    # Gaps of 1, 2 and 3 minutes, and a break of an hour; the two answers whose own time is not
    # known count the median, 2 minutes: 5 answers in 10 minutes.
    answers = [answer(str(n), "ana", minutes) for n, minutes in enumerate((0, 1, 3, 63, 66))]
    assert pace_of(answers) == Pace(5, timedelta(minutes=10))
    assert pace_of(answers).per_hour == pytest.approx(30)
    assert pace_of(answers[:2]).per_hour is None
    assert pace_of([]).per_hour is None
    assert pace_of([answer("1", "ana", 0), answer("2", "ana", 60)]).per_hour is None


def campaign(folder, items, answers, people, names, **settings):
    config = CampaignConfig(people=people, **settings)
    made = Campaign.start(folder, config, "http://127.0.0.1:6900", "Be fair.")
    made.places = {item.queue: Place("d", "d", "w") for item in items}
    made.save()
    made.add([Pair(i.pair_id, [user("?")], "x", "y") for i in items], items)
    made.ledger(writing=True).append(answers)
    made.note_people(names)
    return Campaign(folder)


def test_progress_of_people_with_queues_of_their_own(tmp_path):
    ana, ben = queue_of("ana"), queue_of("ben")
    items = [Item(f"a-{n}", f"p-{n}", ana, "a", "vote") for n in range(4)]
    items += [
        Item("a-g", "g", ana, "a", "gold", "b"),
        Item("a-r", "p-0", ana, "b", "repeat"),
        *(Item(f"b-{n}", f"p-{n}", ben, "b", "vote") for n in range(4)),
    ]
    answers = [
        answer("a-0", "ana", 0),
        answer("a-1", "ana", 1),
        answer("a-2", "ana", 2, status="discarded"),
        answer("a-g", "ana", 3),
        answer("a-r", "ana", 4, "b"),  # shown the other way round: the same answer
        answer("b-0", "ben", 0),
    ]
    found = progress_of(
        campaign(tmp_path / "c", items, answers, ("ana", "ben"), {"u-ana": "ana"}, overlap=2)
    )
    first, second, unnamed = sorted(
        found.people, key=lambda one: (one.assigned is None, one.person)
    )
    assert (first.person, first.assigned, first.submitted, first.discarded) == ("ana", 6, 4, 1)
    assert (first.votes, first.left, first.last_answer) == (2, 1, at(4))
    assert first.gold.value == 0.0 and first.gold.n == 1
    assert first.consistency.value == 1.0
    assert first.pace.per_hour == pytest.approx(60)
    assert first.seconds_left == pytest.approx(60)
    # Ben's name was never learnt: what he did stands under his pseudonym.
    assert (second.person, second.submitted, second.left) == ("ben", 0, 4)
    assert unnamed.person.startswith("p-") and unnamed.submitted == 1
    assert (found.showings, found.submitted, found.discarded, found.left) == (10, 5, 1, 4)
    assert (found.pairs, found.complete_pairs) == (4, 1)
    assert found.seconds_left is None  # nobody can tell for Ben
    assert found.gold.n == 1


def test_progress_of_a_shared_queue(tmp_path):
    items = [Item(f"i-{n}", f"p-{n}", "shared", "a", "vote") for n in range(4)]
    answers = [answer(f"i-{n}", who, n) for n in range(3) for who in ("ana", "ben")]
    answers.append(answer("i-0", "cem", 5))  # one more than were asked for
    found = progress_of(
        campaign(tmp_path / "c", items, answers, (), {f"u-{n}": n for n in ("ana", "ben", "cem")},
                 overlap=2)
    )  # fmt: skip
    assert [one.person for one in found.people] == ["ana", "ben", "cem"]
    assert {one.assigned for one in found.people} == {None}
    assert (found.showings, found.submitted, found.left, found.complete_pairs) == (8, 7, 2, 3)
    assert found.per_hour == pytest.approx(120)  # two people at 60 each; the third is unknown
    assert found.seconds_left == pytest.approx(60)


def test_nothing_is_left_when_all_is_done(tmp_path):
    items = [Item("i", "p", "shared", "a", "vote")]
    found = progress_of(campaign(tmp_path / "c", items, [answer("i", "ana", 0)], (), {}, overlap=1))
    assert (found.left, found.seconds_left) == (0, 0.0)
