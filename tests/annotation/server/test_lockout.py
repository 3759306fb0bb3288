"""Counting wrong passwords."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.server.embedded.plumbline_site.lockout import (
    ADDRESS,
    PAIR,
    PERSON,
    WINDOW_SECONDS,
    Lockout,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "attempts.json"


@pytest.fixture
def lockout(file, clock):
    return Lockout(file, clock)


def _wrong(lockout, user="ana", address="10.0.0.1", times=1):
    return [lockout.begin(user, address) for _ in range(times)]


def test_the_numbers():
    assert (PAIR, ADDRESS, PERSON, WINDOW_SECONDS) == (5, 30, 50, 900)


def test_five_wrong_passwords_lock_and_the_time_opens_again(lockout, clock):
    assert _wrong(lockout, times=5) == [0] * 5
    clock.now += 60
    assert _wrong(lockout) == [WINDOW_SECONDS - 60]
    clock.now += WINDOW_SECONDS - 60.001
    assert _wrong(lockout) == [pytest.approx(0.001)]
    clock.now += 0.002
    assert _wrong(lockout) == [0]


def test_who_waits_does_not_wait_longer_for_trying(lockout, clock):
    _wrong(lockout, times=5)
    clock.now += 100
    _wrong(lockout, times=50)
    clock.now += WINDOW_SECONDS - 100
    assert _wrong(lockout) == [0]


def test_a_slow_guesser_gets_no_more(lockout, clock):
    """Five in any quarter of an hour, however they are spread."""
    let_in = []
    for _ in range(400):
        if _wrong(lockout) == [0]:
            let_in.append(clock.now)
        clock.now += 37
    for start in let_in:
        assert sum(start <= at < start + WINDOW_SECONDS for at in let_in) <= PAIR


def test_a_success_clears_the_pair_and_takes_back_one_of_the_others(lockout, file):
    for _ in range(3):
        _wrong(lockout, times=4)
        assert lockout.begin("ana", "10.0.0.1") == 0
        lockout.succeeded("ana", "10.0.0.1")
    counts = {key.split(":")[0]: len(at) for key, at in json.loads(file.read_text()).items()}
    assert counts == {"address": 12, "person": 12}  # whoever has an account guesses no faster


def test_a_person_is_not_shut_out_by_others_guesses(lockout):
    _wrong(lockout, address="10.6.6.6", times=10)
    assert _wrong(lockout, address="10.0.0.1") == [0]


def test_one_address_tries_thirty_names_at_most(lockout):
    waits = [lockout.begin(f"name-{n}", "10.0.0.1") for n in range(ADDRESS + 1)]
    assert waits == [0] * ADDRESS + [WINDOW_SECONDS]
    assert lockout.begin("name-1", "10.0.0.2") == 0


def test_one_person_is_tried_fifty_times_at_most(lockout):
    waits = [lockout.begin("ana", f"10.0.{n}.1") for n in range(PERSON + 1)]
    assert waits == [0] * PERSON + [WINDOW_SECONDS]
    assert lockout.begin("ben", "10.0.200.1") == 0


@pytest.mark.parametrize(
    ("one", "two", "are_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),  # one line's addresses
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("testclient", "other", False),
    ],
)
def test_what_counts_as_one_address(lockout, one, two, are_one):
    _wrong(lockout, address=one, times=5)
    assert (_wrong(lockout, address=two) != [0]) == are_one


def test_unlock_forgets_a_person_and_the_addresses(lockout, file, clock):
    for user in ("ana", "ben"):
        _wrong(lockout, user, times=5)
    Lockout(file, clock).forget("ana")  # another process: `annotate users unlock`
    assert _wrong(lockout, "ana") == [0]
    assert _wrong(lockout, "ben") != [0]
    for number in range(ADDRESS):
        _wrong(lockout, f"name-{number}", "10.0.0.9")
    assert _wrong(lockout, "cy", "10.0.0.9") != [0]
    Lockout(file, clock).forget("cy")
    assert _wrong(lockout, "cy", "10.0.0.9") == [0]


def test_a_restart_forgives_nobody(lockout, file, clock):
    _wrong(lockout, times=5)
    assert _wrong(Lockout(file, clock)) != [0]


def test_neither_names_nor_addresses_are_written(lockout, file):
    _wrong(lockout, "hunter2-typed-as-a-name", "10.11.12.13")
    assert "hunter2" not in file.read_text()
    assert "10.11" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_file_does_not_grow_for_ever(lockout, file, clock):
    for number in range(200):
        lockout.begin(f"name-{number}", f"10.1.{number}.1")
    clock.now += WINDOW_SECONDS + 1
    _wrong(lockout)
    assert len(json.loads(file.read_text())) == 3


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b'{"a": ["x"]}'])
def test_a_damaged_file_lets_people_in_and_counts_again(file, clock, damage):
    file.write_bytes(damage)
    lockout = Lockout(file, clock)
    assert _wrong(lockout, times=6) == [0] * 5 + [WINDOW_SECONDS]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("12"), st.booleans()), max_size=60)
)
def test_never_more_than_five_wrong_in_a_row(tmp_path_factory, attempts):
    lockout = Lockout(tmp_path_factory.mktemp("x") / "attempts.json", Clock())
    wrong: dict[tuple[str, str], int] = {}
    for user, address, is_right in attempts:
        pair = user, address
        if lockout.begin(user, address) > 0:
            # Before the other limits can matter, this pair has had its five.
            assert wrong.get(pair, 0) >= PAIR or sum(wrong.values()) >= ADDRESS
        elif is_right:
            lockout.succeeded(user, address)
            wrong[pair] = 0
        else:
            wrong[pair] = wrong.get(pair, 0) + 1
            assert wrong[pair] <= PAIR
