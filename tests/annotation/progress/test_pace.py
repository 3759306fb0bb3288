"""How fast people answer, and how long the rest takes: by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.agreement.intervals import Value
from annotation.progress.pace import BREAK, Load, Pace, forecast, pace_of, pooled, time_left

NOW = datetime(2026, 1, 12, 9, tzinfo=UTC)
NOBODY = pace_of([])


def at(*minutes):
    return [NOW + timedelta(minutes=minute) for minute in minutes]


def rate(per_hour, hours=1.0):
    """A pace of so many answers an hour, seen for so long."""
    return Pace(round(per_hour * hours), 3600 * hours, Value(None))


def test_breaks_and_the_first_answer_after_one_count_for_nothing():
    # Gaps of 1, 2 and 3 minutes around a break of an hour: three answers in six minutes.
    pace = pace_of(at(63, 0, 1, 3, 66))
    assert (pace.timed, pace.active_seconds) == (3, 360)
    assert pace.per_hour.value == pytest.approx(30)
    assert pace.median_seconds.value == 120


def test_a_gap_of_ten_minutes_is_work_and_a_second_more_is_a_break():
    assert timedelta(minutes=10) == BREAK
    start = NOW
    assert pace_of([start, start + BREAK]).per_hour.value == pytest.approx(6)
    assert pace_of([start, start + BREAK + timedelta(seconds=1)]).timed == 0


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (at(), "no two answers without a break"),
        (at(0), "no two answers without a break"),
        (at(0, 11), "no two answers without a break"),
        (at(0, 0, 0), "all answers have the same time"),
    ],
)
def test_what_cannot_be_known_of_a_pace_is_none_with_the_reason(times, reason):
    found = pace_of(times).per_hour
    assert found.value is None
    assert reason in found.reason


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=40), st.integers(1, 500))
def test_a_pace_is_the_same_whenever_it_is_worked(seconds, later):
    times = [NOW + timedelta(seconds=second) for second in seconds]
    shifted = [time + timedelta(hours=later) for time in reversed(times)]
    assert pace_of(times) == pace_of(shifted)


def test_a_pooled_pace_gives_weight_to_who_worked_longer():
    # 60 answers in one hour and 60 in three: 120 in four hours of work.
    assert pooled([rate(60), rate(20, 3)]).per_hour.value == pytest.approx(30)
    assert pooled([]).per_hour.value is None


def test_own_queues_take_as_long_as_the_longest():
    # Ana has 60 left at 60 an hour: an hour. Ben has 30 left at 20 an hour: an hour and a
    # half. Cy has not begun; of all work so far, 120 answers took 4 hours: 15 left take another
    # half hour. Dora is done.
    loads = [
        Load(60, (rate(60),)),
        Load(30, (rate(20, 3),)),
        Load(15, (NOBODY,)),
        Load(0, (NOBODY,)),
    ]
    found = time_left(loads)
    assert found.person_hours.value == pytest.approx(1 + 1.5 + 0.5)
    assert found.together_hours.value == pytest.approx(1.5)


def test_a_shared_queue_is_shared_by_whoever_works_on_it():
    # 60 and 30 an hour together are 90 an hour; 90 answers in two hours are 45 in one's hour.
    found = time_left([Load(90, (rate(60), rate(30), NOBODY))])
    assert found.together_hours.value == pytest.approx(1)
    assert found.person_hours.value == pytest.approx(2)


def test_time_left_is_nothing_where_nothing_is_left_and_none_where_nobody_can_tell():
    assert time_left([Load(0, (NOBODY,))]).person_hours == Value(0.0)
    found = time_left([Load(5, (NOBODY,)), Load(5, ())])
    assert found.person_hours.value is None
    assert found.together_hours.value is None
    assert "so no pace is known" in found.person_hours.reason


def test_a_forecast_goes_on_as_in_the_last_days():
    # In two days ana gave 20 and has 10 left: one day more. Ben gave 10 and has 20 left: four.
    loads = [Load(10, (), recent=20), Load(20, (), recent=10), Load(0, (), recent=0)]
    found = forecast(loads, NOW - timedelta(days=2), NOW)
    assert found.finish == NOW + timedelta(days=4)
    assert (found.days_looked_at, found.answers) == (2, 30)
    # Since a month: then only the last seven days are looked at.
    found = forecast(loads, NOW - timedelta(days=30), NOW)
    assert found.finish == NOW + timedelta(days=14)
    assert found.days_looked_at == 7


@pytest.mark.parametrize(
    ("loads", "days", "reason"),
    [
        ([Load(5, (), 100)], 0.9, "began less than a day ago"),
        ([Load(5, (), 9), Load(7, (), 0)], 3, "7 answers wait for people who gave none"),
        ([Load(0, (), 9)], 3, "nothing is missing"),
        ([Load(5, ())], None, "nobody has answered yet"),
    ],
)
def test_no_day_is_named_that_nobody_can_know(loads, days, reason):
    first = NOW - timedelta(days=days) if days is not None else None
    found = forecast(loads, first, NOW)
    assert found.finish is None
    assert reason in found.reason
