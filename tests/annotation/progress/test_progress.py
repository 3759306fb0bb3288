"""How far a campaign has come, worked out by hand; and how that is told, in words and on a page."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from annotation.agreement.intervals import Bootstrap, wilson
from annotation.agreement.label_agreement import measure_labels
from annotation.agreement.person_statistics import gold_accuracy
from annotation.argilla.api import Answer, DatasetProgress
from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import RESERVE, SHARED, Item, pseudonym, queue_of
from annotation.campaign.pull import labels_from
from annotation.campaign.waiting import waiting_in
from annotation.progress.alarms import AlarmConfig
from annotation.progress.progress import measure_progress
from annotation.progress.progress_text import (
    ago,
    alarm_lines,
    as_dict,
    names_for,
    notes,
    sentences,
)
from annotation.progress.quality import measure_quality
from annotation.progress.status_page import bar, line, render, write_page
from annotation.progress.status_tables import tables
from annotation.vote_table import in_natural_order
from plumbline.data.labels import Label

NOW = datetime(2026, 1, 12, 12, tzinfo=UTC)
SECRET = b"a secret for tests"
USERS = {"u-ana": "ana", "u-ben": "ben", "u-cy": "cy"}
ANA, BEN, CY = queue_of("ana"), queue_of("ben"), queue_of("cy")


def answer(item, user, minutes_ago, choice="a", status="submitted", changed=None):
    given_at = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    changed_at = given_at if changed is None else (NOW - timedelta(minutes=changed)).isoformat()
    values = {"choice": choice} if status == "submitted" else {}
    return Answer(f"{item}-{user}", item, f"u-{user}", status, values, given_at, changed_at)


def progress_of(items, answers, queues, *, overlap=1, members=None, users=USERS, now=NOW):
    labels = labels_from(answers, items, SECRET, CampaignConfig())
    return measure_progress(
        "shop", items, answers, labels,
        measure_quality(labels.labels, labels.gold, {}, AlarmConfig(), 50),
        overlap=overlap, queues=queues, users=users, members=members, secret=SECRET, now=now,
    )  # fmt: skip


def people(found):
    return {person.name: person for person in found.people}


ITEMS = [
    *(Item(f"a{n}", f"p{n}", ANA, "a", "vote") for n in range(4)),
    Item("ag", "g", ANA, "a", "gold", "a"),
    Item("ar", "p1", ANA, "a", "repeat"),
    *(Item(f"b{n}", f"p{n}", BEN, "a", "vote") for n in range(4)),
    Item("spare", "h", RESERVE, "a", "gold", "a"),
    Item("c0", "p9", CY, "a", "vote"),  # decided, and its queue is not there yet
]
ANSWERS = [
    answer("a0", "ana", 90),
    answer("ag", "ana", 89, "b"),
    answer("a1", "ana", 59),
    answer("a2", "ana", 58, "tie", changed=5),
    answer("ar", "ana", 57, "b"),
    answer("b0", "ben", 1441, "b"),
    answer("b1", "ben", 1440, status="discarded"),
    answer("b2", "ben", 30, status="draft", changed=3),  # taken back
    answer("of somebody else", "ben", 2),
]


def test_people_with_queues_of_their_own_by_hand():
    found = progress_of(ITEMS, ANSWERS, {ANA, BEN}, users=USERS | {"u-dora": "dora"})
    assert list(people(found)) == ["ana", "ben"]
    ana, ben = found.people
    assert (ana.assigned, ana.submitted, ana.discarded, ana.open) == (6, 5, 0, 1)
    assert (ben.assigned, ben.submitted, ben.discarded, ben.open) == (4, 1, 1, 2)
    assert (ana.done, ben.done) == (5 / 6, 2 / 4)
    assert (ana.last_hour, ana.last_day) == (3, 5)
    assert (ben.last_hour, ben.last_day) == (0, 0)  # a day ago to the minute is a day ago
    assert ana.last_seen == NOW - timedelta(minutes=5)
    assert ben.last_seen == NOW - timedelta(minutes=3)
    # Ana's gaps are 1, 30, 1 and 1 minutes, of which the long one is a break.
    assert (ana.pace.timed, ana.pace.active_seconds) == (3, 180)
    # Both have a vote on p0, which differ; ana's repeat differs from her vote, and her one gold
    # item is wrong.
    assert (ana.quality.agreement.value, ana.quality.agreement.n) == (0, 1)
    assert ana.quality.gold_accuracy == wilson(0, 1, nothing="")
    assert ana.quality.self_consistency == wilson(0, 1, nothing="")
    assert ben.quality.gold_accuracy.value is None
    assert ana.pseudonym == pseudonym(SECRET, "u-ana")

    totals = found.totals
    assert (totals.items, totals.wanted, totals.completed, totals.set_aside) == (10, 10, 6, 1)
    assert (totals.open, totals.not_sent, totals.out_of_reach) == (3, 1, None)
    # Votes: ana's on p0, p1, p2 and ben's on p0. Missing: ana's p3 and ben's p1 (which he
    # discarded), p2 and p3. Only p0 has both.
    assert (totals.pairs, totals.pairs_completed) == (4, 1)
    assert (totals.votes, totals.votes_missing, totals.votes_lost) == (4, 4, 1)
    assert totals.done == pytest.approx(0.7)
    assert not found.finished
    # Ana: 1 left at 60 an hour. Ben: 2 left at 60 an hour, too, from his one gap of a minute.
    assert found.time_left.together_hours.value == pytest.approx(2 / 60)
    assert found.time_left.person_hours.value == pytest.approx(3 / 60)
    # Ana has answered 5 since the first answer, 1441 minutes ago, and ben 2: both go on so.
    assert found.forecast.finish == NOW + timedelta(minutes=1441)


def test_a_shared_queue_by_hand():
    items = [
        *(Item(f"i{n}", f"p{n}", SHARED, "a", "vote") for n in range(3)),
        Item("g", "g", SHARED, "a", "gold", "a"),
    ]
    answers = [
        answer("i0", "ana", 30),
        answer("i0", "ben", 20, "b"),
        answer("i0", "cy", 10),  # one more than the overlap: both were at it at once
        answer("i1", "ana", 29),
        answer("i1", "ben", 19, status="discarded"),
        answer("g", "ana", 28),
    ]
    found = progress_of(items, answers, {SHARED}, overlap=2, members=["u-ana", "u-ben", "u-dora"])
    by_name = people(found)
    # Dora is in the workspace, known only by her id, and has not started. Cy is no longer in it.
    assert set(by_name) == {"ana", "ben", "cy", "u-dora"}
    assert {name: person.open for name, person in by_name.items()} == {
        "ana": 1, "ben": 2, "cy": 0, "u-dora": 3,
    }  # fmt: skip
    assert by_name["ana"].assigned is None
    assert by_name["ana"].done == 3 / 4
    totals = found.totals
    # Of two answers each: i0 has both, i1 and g one each (a discard counts for nobody), i2 none.
    assert (totals.items, totals.completed, totals.wanted, totals.open) == (4, 1, 8, 4)
    assert totals.set_aside == 0
    assert (totals.votes, totals.votes_missing, totals.votes_lost) == (3, 3, 0)
    # i1 waits for one more, and dora may; so for g. i2 waits for two of three.
    assert totals.out_of_reach == 0
    alone = progress_of(items, answers, {SHARED}, overlap=2, members=["u-ana", "u-ben"])
    # Without dora nobody is left for i1.
    assert alone.totals.out_of_reach == 1
    assert "1 answers need people who have no access yet" in alone.forecast.reason
    assert any("overlap of 2" in note for note in notes(alone, names_for(alone, real=True)))
    unknown = progress_of(items, answers, {SHARED}, overlap=2)
    assert unknown.totals.out_of_reach is None
    assert people(unknown)["cy"].open == 3


def test_nothing_and_everything():
    nothing = progress_of([], [], set())
    assert not nothing.finished
    assert sentences(nothing) == ["Nothing has been sent yet."]
    items = ITEMS[6:10]
    fresh = progress_of(items, [], {BEN})
    assert (fresh.people[0].name, fresh.people[0].answers) == ("ben", 0)
    assert fresh.time_left.person_hours.value is None
    assert "These people have answered nothing yet: ben." in notes(
        fresh, names_for(fresh, real=True)
    )
    done = progress_of(items, [answer(item.id, "ben", n) for n, item in enumerate(items)], {BEN})
    assert done.finished
    assert done.time_left.person_hours.value == 0
    assert sentences(done)[-1] == "Nothing is left to answer."


def test_a_vote_that_was_given_at_the_second_showing_is_not_lost():
    items = [Item("a0", "p0", ANA, "a", "vote"), Item("ar", "p0", ANA, "a", "repeat")]
    answers = [answer("a0", "ana", 5, status="discarded"), answer("ar", "ana", 4)]
    totals = progress_of(items, answers, {ANA}).totals
    assert (totals.votes, totals.votes_missing, totals.votes_lost) == (1, 0, 0)


def test_what_is_not_sent_yet_is_not_finished():
    answers = [answer(f"b{n}", "ben", n) for n in range(4)]
    assert progress_of(ITEMS[6:10], answers, {BEN}).finished
    found = progress_of([*ITEMS[6:10], ITEMS[-1]], answers, {BEN})
    assert (found.totals.open, found.totals.not_sent, found.finished) == (0, 1, False)


def test_what_is_discarded_brings_the_end_of_a_shared_queue_no_nearer():
    items = [Item(f"i{n}", f"p{n}", SHARED, "a", "vote") for n in range(9)]
    days = 60 * 24
    answers = [answer(f"i{n}", "ana", 3 * days) for n in range(3)]
    answers += [answer(f"i{n}", "ana", days, status="discarded") for n in range(3, 6)]
    found = progress_of(items, answers, {SHARED})
    # Three came in three days, and six are missing.
    assert found.forecast.finish == NOW + timedelta(days=6)


def test_an_account_that_was_made_anew_has_the_queue_and_both_have_their_answers():
    users = {"u-old": "ben", "u-ben": "ben"}
    found = progress_of(ITEMS[6:10], [answer("b0", "old", 9), answer("b1", "ben", 8)], {BEN},
                     users=users)  # fmt: skip
    by_name = people(found)
    assert (by_name["ben"].assigned, by_name["ben"].submitted, by_name["ben"].open) == (4, 1, 2)
    assert (by_name["ben (2)"].assigned, by_name["ben (2)"].submitted) == (None, 1)


STATUSES = st.sampled_from(["submitted", "discarded", "draft", "nothing"])


@given(st.lists(STATUSES, min_size=5, max_size=5), st.lists(STATUSES, min_size=15, max_size=15))
def test_what_waits_is_what_a_waiting_recipe_waits_for(own, shared):
    """`annotation.campaign.waiting.left` is told by the server; this is worked out without it."""
    items = [Item(f"o{n}", f"p{n}", ANA, "a", "vote") for n in range(5)]
    items += [Item(f"s{n}", f"q{n}", SHARED, "a", "vote") for n in range(5)]
    said = [(f"o{n}", "ana", status) for n, status in enumerate(own)]
    said += [(f"s{n // 3}", f"{n % 3}", status) for n, status in enumerate(shared)]
    answers = [answer(i, who, 5, status=status) for i, who, status in said if status != "nothing"]
    found = progress_of(items, answers, {ANA, SHARED}, overlap=2)
    votes = Counter(item for item, _, status in said if status == "submitted")
    done = {
        ANA: DatasetProgress(5, sum(votes[f"o{n}"] >= 1 for n in range(5)), {},
                  {"ana": own.count("discarded")}),
        SHARED: DatasetProgress(5, sum(votes[f"s{n}"] >= 2 for n in range(5)), {},
                     {"x": shared.count("discarded")}),
    }  # fmt: skip
    waiting = sum(waiting_in(queue, 5, counts) for queue, counts in done.items())
    totals = found.totals
    assert totals.items - totals.completed - totals.set_aside == waiting
    assert found.finished == (waiting == 0)
    assert totals.votes + totals.votes_missing == totals.wanted == 15


def test_quality_has_the_figures_of_the_agreement_page():
    made = [
        Label(f"p{n}", who, "argilla", choice, (NOW + timedelta(minutes=n)).isoformat(), "a")
        for n in range(12)
        for who, choice in (("x", ("a", "b", "tie")[n % 3]), ("y", "ab"[n % 2]), ("z", "ab"[n % 2]))
    ]
    made += [
        Label(f"g{n}", "x", "argilla", "aab"[n % 3], NOW.isoformat(), "a", purpose="gold")
        for n in range(6)
    ]
    gold = {f"g{n}": "a" for n in range(6)}
    found = measure_quality(made, gold, {}, AlarmConfig())
    page = measure_labels(made, gold, bootstrap=Bootstrap(200))
    assert found.everybody.agreement == page.choice.agreement
    assert found.alpha == page.choice.alpha
    assert {name: own.agreement for name, own in found.people.items()} == {
        person.name: person.with_others for person in page.choice.people
    }
    assert found.everybody.gold_accuracy == gold_accuracy(made, gold) == wilson(4, 6, nothing="")
    assert (found.people["x"].votes, found.everybody.votes) == (12, 36)


def test_a_person_who_does_worse_is_named_and_others_are_not():
    # Ben answers all 40 gold items wrong and ana all right: in all, one half.
    items = [
        Item(f"{who}{n}", f"g{n}", queue_of(who), "a", "gold", "a")
        for who in ("ana", "ben")
        for n in range(40)
    ]
    answers = [
        answer(item.id, item.person, n, "a" if item.person == "ana" else "b")
        for n, item in enumerate(items)
    ]
    found = progress_of(items, answers, {ANA, BEN})
    told = " ".join(notes(found, names_for(found, real=False)))
    assert f"{pseudonym(SECRET, 'u-ben')} answers fewer gold items right" in told
    assert pseudonym(SECRET, "u-ana") not in told


def test_a_day_is_told_as_no_more_than_a_line_drawn_on():
    items = [Item(f"a{n}", f"p{n}", ANA, "a", "vote") for n in range(30)]
    days = [answer(f"a{n}", "ana", 60 * 24 * (5 - n / 2)) for n in range(10)]
    told = sentences(progress_of(items, days, {ANA}))[-1]
    # Ten in five days; twenty more take ten.
    assert told == (
        "At the rate of the last 5.0 days (10 answers), the last answer comes in about "
        "10 days, around 22 January 2026."
    )
    told = sentences(progress_of(items, days[-1:], {ANA}))[-1]
    assert "There is no forecast: people began less than a day ago" in told


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"),
        (3600, "1 h ago"), (2 * 86400 - 1, "47 h ago"), (2 * 86400, "2 days ago"),
    ],
)  # fmt: skip
def test_how_long_ago(seconds, words):
    assert ago(NOW - timedelta(seconds=seconds), NOW) == words
    assert ago(None, NOW) == "never"


def test_json_names_people_only_if_asked_to():
    found = progress_of(ITEMS, ANSWERS, {ANA, BEN})
    text = json.dumps(as_dict(found), allow_nan=False)
    assert '"ana"' not in text and "u-ana" not in text
    assert pseudonym(SECRET, "u-ana") in text
    named = as_dict(found, real_names=True)
    assert [person["name"] for person in named["people"]] == ["ana", "ben"]
    assert named["people"][0]["pace"]["per_hour"] == {"value": 60.0, "reason": ""}
    assert named["votes_missing"] == 4
    fresh = progress_of(ITEMS, [], {ANA, BEN}, users={})
    assert list(names_for(fresh, real=False).values()) == ["not started 1", "not started 2"]


# The page.


def test_answers_add_up_in_steps():
    # Four answers: one at the start, two half way, one at the end.
    times = [NOW, NOW + timedelta(hours=5), NOW + timedelta(hours=5), NOW + timedelta(hours=10)]
    drawn = line(times, NOW, NOW + timedelta(hours=10), 4, target=3)
    assert drawn.points == "0,75 50,75 50,25 100,25 100,0"
    assert drawn.target == 25
    assert line([], NOW, NOW, 0).points == "0,100 100,100"


@given(st.lists(st.integers(0, 36_000), min_size=1, max_size=60))
def test_a_line_never_falls_and_ends_at_the_count(seconds):
    times = [NOW + timedelta(seconds=second) for second in seconds]
    drawn = line(times, min(times), max(times), len(times))
    points = [tuple(map(float, point.split(","))) for point in drawn.points.split()]
    assert points == sorted(points, key=lambda point: (point[0], -point[1]))
    assert points[-1] == (100, 0)


def test_bars_show_what_was_done():
    found = progress_of(ITEMS, ANSWERS, {ANA, BEN})
    assert bar(found.people[1]) == (25, 25)
    assert bar(found) == (60, 10)


def test_the_page_is_whole_asks_for_nothing_and_names_nobody(tmp_path):
    found = progress_of(ITEMS, ANSWERS, {ANA, BEN})
    page = render(found)
    assert "default-src 'none'" in page
    for tag in ("<script", "src=", 'href="http', 'http-equiv="refresh"', ">ana<", ">ben<"):
        assert tag not in page
    assert page.count(pseudonym(SECRET, "u-ana")) == 3  # people, quality, over time
    assert page.count("<polyline") == 3
    live = render(found, real_names=True, refresh=4.6, warning="Away <for> now.")
    assert '<meta http-equiv="refresh" content="5">' in live
    assert ">ana<" in live and "Away &lt;for&gt; now." in live
    hostile = render(progress_of(ITEMS, ANSWERS, {ANA, BEN}, users={"u-ana": "<img src=x>"}),
                     real_names=True)  # fmt: skip
    assert "<img" not in hostile and "&lt;img" in hostile
    file = tmp_path / "new" / "status.html"
    write_page(file, found)
    assert file.stat().st_mode & 0o077  # as the user's mask has it
    write_page(file, found, real_names=True)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in file.parent.iterdir()] == ["status.html"]
    render(progress_of([], [], set()))
    render(progress_of(ITEMS, [], {ANA, BEN}))


def test_people_stand_in_the_order_of_the_names_that_are_shown():
    users = {f"u-{n}": f"person-{n}" for n in range(12)}
    items = [Item(f"i{n}", "p", queue_of(f"person-{n}"), "a", "vote") for n in range(12)]
    found = progress_of(items, [], {item.queue for item in items}, users=users)
    assert [person.name for person in found.people] == list(users.values())
    shown = in_natural_order(pseudonym(SECRET, user) for user in users)
    assert shown != [pseudonym(SECRET, user) for user in users]
    assert [person["person"] for person in as_dict(found)["people"]] == shown
    page = render(found)
    places = [page.index(f"<td>{name}") for name in shown]
    assert places == sorted(places)
    (idle,) = [
        note for note in notes(found, names_for(found, real=False)) if "answered nothing" in note
    ]
    assert idle == f"These people have answered nothing yet: {', '.join(shown)}."


def test_an_alarm_is_told_on_the_terminal_on_the_page_and_in_the_json_each_with_its_names():
    items = [Item(f"i{n}", f"p{n}", ANA, "ab"[n % 2], "vote") for n in range(40)]
    # Always A, whichever response that is.
    answers = [answer(f"i{n}", "ana", 200 - 4 * n) for n in range(40)]
    found = progress_of(items, answers, {ANA})
    shown = pseudonym(SECRET, "u-ana")
    (line_,) = alarm_lines(found, names_for(found, real=True))
    assert line_.startswith("ana prefers A in 100% of 40 preferences")
    console = Console(width=120, record=True, file=StringIO())
    console.print(tables(found, 120))
    assert "Look at this" in console.export_text()
    page = render(found)
    assert "Look at this" in page
    assert f"{shown} prefers A in 100% of 40 preferences" in page
    (person,) = as_dict(found)["people"]
    assert [alarm["kind"] for alarm in person["alarms"]] == ["one_side"]
    calm = progress_of(items, answers[:19], {ANA})
    assert "Look at this" not in render(calm)
