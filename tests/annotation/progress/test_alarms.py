"""Alarms about one person's answers: raised where they are due, and silent about careful people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from annotation.progress.alarms import AlarmConfig, alarms_of, word_count
from plumbline.data.labels import Label

MONDAY = datetime(2026, 1, 12, 12, tzinfo=UTC)
DEFAULTS = AlarmConfig()


def work(who="ana", count=40, *, seconds=60.0, sides="ab", choose=lambda n: "a", purpose="vote"):
    """Return a day's answers, one every so many seconds; ``seconds`` may be a function of n."""
    made, when = [], MONDAY
    for n in range(count):
        when += timedelta(seconds=seconds(n) if callable(seconds) else seconds)
        made.append(
            Label(
                f"p{n}", who, "argilla", choose(n), when.isoformat(),
                sides[n % len(sides)], purpose=purpose,
            )
        )  # fmt: skip
    return made


def words(labels, each=200):
    return {label.pair_id: each for label in labels}


def kinds(labels, answers=None, lengths=None, config=DEFAULTS):
    lengths = words(labels) if lengths is None else lengths
    raised = alarms_of(labels, answers or {}, lengths, config)
    return {who: [alarm.kind for alarm in alarms] for who, alarms in raised.items()}


def test_a_careful_person_raises_no_alarm():
    dice = Random(0)
    own = work(
        count=200, choose=lambda _: dice.choice("ab"), seconds=lambda _: dice.uniform(30, 90)
    )
    assert kinds(own) == {}


def test_answers_faster_than_anyone_can_read_raise_an_alarm():
    # 200 words at 700 words a minute take 17.1 seconds.
    assert kinds(work(seconds=17)) == {"ana": ["too_fast"]}
    assert kinds(work(seconds=18)) == {}
    assert kinds(work(seconds=17), lengths={}) == {}  # pairs whose length is not known
    (alarm,) = alarms_of(work(seconds=5), {}, words(work()), DEFAULTS)["ana"]
    assert alarm.text.startswith("gave 39 of 39 answers faster than anyone can read")
    assert "5 s for 200 words" in alarm.text


def test_a_few_fast_answers_and_too_few_answers_raise_none():
    assert kinds(work(seconds=lambda n: 5 if n % 12 == 0 else 60)) == {}
    assert kinds(work(count=20, seconds=5)) == {}  # 19 of them are timed
    assert kinds(work(count=21, seconds=5)) == {"ana": ["too_fast"]}
    # After a break nobody knows when the reading began.
    assert kinds(work(seconds=lambda n: 5 if n < 15 else 700)) == {}


def test_always_the_same_side_raises_an_alarm_and_always_the_same_response_does_not():
    same_side = work(choose=lambda n: "ab"[n % 2])
    assert kinds(same_side) == {"ana": ["one_side"]}
    (alarm,) = alarms_of(same_side, {}, {}, DEFAULTS)["ana"]
    assert alarm.text.startswith("prefers A in 100% of 40 preferences")
    other_side = work(choose=lambda n: "ba"[n % 2])
    assert "prefers B in 100%" in alarms_of(other_side, {}, {}, DEFAULTS)["ana"][0].text
    assert kinds(work(choose=lambda n: "a")) == {}
    assert kinds(work(choose=lambda n: "tie")) == {}


@pytest.mark.parametrize(("same", "alarm"), [(4, True), (5, False), (10, False)])
def test_repeats_answered_otherwise_raise_an_alarm_where_it_is_certain(same, alarm):
    # Wilson's interval ends at 0.687 for 4 of 10, and at 0.763 for 5 of 10; the threshold is 0.7.
    first = work(count=10)
    again = work(count=10, choose=lambda n: "a" if n < same else "b", purpose="repeat")
    assert kinds(first + again, lengths={}) == ({"ana": ["repeats"]} if alarm else {})


@pytest.mark.parametrize(("right", "alarm"), [(5, True), (6, False)])
def test_gold_items_answered_wrong_raise_an_alarm_where_it_is_certain(right, alarm):
    # The interval ends at 0.763 for 5 of 10, and at 0.832 for 6 of 10; the threshold is 0.8.
    own = work(count=10, choose=lambda n: "a" if n < right else "b", purpose="gold")
    answers = {label.pair_id: "a" for label in own}
    assert kinds(own, answers, {}) == ({"ana": ["gold"]} if alarm else {})
    assert kinds(own[-4:], answers, {}) == {}  # too few to say


def test_twice_as_fast_in_the_second_half_of_a_day_raises_an_alarm():
    own = work(count=42, seconds=lambda n: 100 if n < 21 else 49)
    assert kinds(own) == {"ana": ["faster_late"]}
    assert kinds(work(count=42, seconds=lambda n: 100 if n < 21 else 51)) == {}
    # Shorter texts take less time, and that is no drift.
    shorter = {label.pair_id: 400 if n < 21 else 196 for n, label in enumerate(own)}
    assert kinds(own, lengths=shorter) == {}


def test_less_agreement_late_in_the_day_raises_an_alarm_about_that_person_only():
    others = []
    for who in ("ben", "cem", "dan"):
        others += work(who, 60, choose=lambda n: "ab"[n % 2], sides="aabb")
    own = work(count=60, choose=lambda n: "ab"[n % 2] if n < 30 or n % 3 else "tie", sides="aabb")
    assert kinds(own + others, lengths={}) == {"ana": ["worse_late"]}
    text = alarms_of(own + others, {}, {}, DEFAULTS)["ana"][0].text
    assert text.startswith("agrees with others in 67% of cases in the second half")


def test_thresholds_are_settings():
    strict = AlarmConfig(words_per_minute=100, least_answers=5)
    assert kinds(work(count=10), config=strict) == {"ana": ["too_fast"]}
    lenient = AlarmConfig(side_share=0.95)
    assert kinds(work(choose=lambda n: "ab"[n % 2]), config=lenient) == {}


def test_adjudications_raise_no_alarm():
    assert kinds(work(seconds=1, purpose="adjudication")) == {}


@pytest.mark.parametrize(
    ("text", "count"), [("one two  three", 3), ("", 0), ("今天天气很好", 3), ("A 今天 b", 3)]
)
def test_words_are_counted_as_a_reader_would(text, count):
    assert word_count(text) == count
