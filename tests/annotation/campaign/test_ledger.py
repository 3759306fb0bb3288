"""The journal of answers: nothing twice, nothing lost, whatever a kill leaves behind."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.argilla.api import Answer
from annotation.campaign.ledger import Ledger
from plumbline.errors import DataError

ANSWER = Answer(
    id="r-1",
    item="i-1",
    user_id="u-1",
    status="submitted",
    values={"choice": "a", "rationale": "näher\nam Thema"},
    given_at="2026-01-05T09:00:00+00:00",
    changed_at="2026-01-05T09:00:00+00:00",
)
EDITED = replace(ANSWER, values={"choice": "b"}, changed_at="2026-01-05T10:00:00+00:00")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def test_answers_come_back_as_they_were(path):
    Ledger(path, writing=True).append([ANSWER])
    assert Ledger(path).current() == [ANSWER]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_same_version_is_taken_once_and_a_later_one_beside_it(path):
    ledger = Ledger(path, writing=True)
    assert ledger.append([ANSWER]) == (1, 0)
    assert ledger.append([ANSWER, EDITED, EDITED]) == (0, 1)
    again = Ledger(path, writing=True)
    assert again.append([EDITED, ANSWER]) == (0, 0)
    assert again.versions() == [[ANSWER, EDITED]]
    assert again.current() == [EDITED]
    assert len(path.read_text().splitlines()) == len(again) == 2


def test_versions_are_ordered_by_time_not_by_arrival(path):
    ledger = Ledger(path, writing=True)
    ledger.append([EDITED])
    ledger.append([ANSWER])
    assert ledger.current() == [EDITED]


def test_an_answer_given_again_after_a_restore_takes_the_place_of_the_first(path):
    ledger = Ledger(path, writing=True)
    again = replace(EDITED, id="r-2")
    other = replace(EDITED, id="r-3", user_id="u-2")
    ledger.append([again, ANSWER, other])
    assert ledger.current() == [again, other]
    assert len(ledger.versions()) == 3


def test_a_draft_is_noted_only_where_it_takes_an_answer_back(path):
    ledger = Ledger(path, writing=True)
    draft = replace(ANSWER, status="draft")
    assert ledger.append([draft]) == (0, 0)
    back = replace(ANSWER, status="draft", changed_at="2026-01-05T11:00:00+00:00")
    assert ledger.append([ANSWER, back]) == (1, 1)
    assert ledger.current()[0].status == "draft"


@given(cut=st.integers(0, 10_000))
def test_a_kill_in_the_middle_of_a_line_loses_that_line_alone(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("ledger") / "labels.jsonl"
    answers = [replace(ANSWER, id=f"r-{n}", item=f"i-{n}") for n in range(5)]
    ledger = Ledger(path, writing=True)
    for answer in answers:
        ledger.append([answer])
    whole = path.read_bytes()
    cut %= len(whole) + 1
    path.write_bytes(whole[:cut])
    left = whole[:cut].count(b"\n")
    assert Ledger(path).current() == answers[:left]  # reading neither fails nor repairs
    assert path.stat().st_size == cut
    repaired = Ledger(path, writing=True)
    assert repaired.repaired_bytes == cut - (whole[:cut].rfind(b"\n") + 1)
    repaired.append(answers)
    assert Ledger(path).current() == answers
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named(path):
    Ledger(path, writing=True).append([ANSWER])
    path.write_text("garbage\n" + path.read_text())
    with pytest.raises(DataError, match=r"labels\.jsonl, line 1 is damaged"):
        Ledger(path)


def test_a_journal_of_a_later_version_is_not_misread(path):
    path.write_text(json.dumps(asdict(ANSWER) | {"colour": "red"}) + "\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        Ledger(path)


def test_reading_does_not_write(path):
    with pytest.raises(ValueError, match="opened for reading"):
        Ledger(path).append([ANSWER])
    assert not path.exists()


def test_a_journal_that_lost_its_end_is_noticed_and_only_a_full_reading_ends_it(path):
    Ledger(path, writing=True).append([ANSWER])
    whole = path.read_bytes()
    Ledger(path, writing=True).append([EDITED])
    assert Ledger(path).lost_bytes == 0
    added = path.stat().st_size - len(whole)
    path.write_bytes(whole)  # a copy that stopped early: whole lines, but too few
    assert Ledger(path).lost_bytes == added
    again = Ledger(path, writing=True)
    again.append([replace(EDITED, id="r-9")])  # fewer bytes than were lost, or as many
    assert Ledger(path).lost_bytes > 0 or path.stat().st_size >= len(whole) + added
    again.accept_length()
    assert Ledger(path).lost_bytes == again.lost_bytes == 0


def test_a_journal_that_is_gone_is_noticed(path):
    Ledger(path, writing=True).append([ANSWER])
    path.unlink()
    assert Ledger(path).lost_bytes > 0


def test_a_journal_of_an_earlier_version_has_no_length_and_lost_nothing(path):
    Ledger(path, writing=True).append([ANSWER])
    (path.parent / "labels-length.json").unlink()
    assert Ledger(path).lost_bytes == 0
