"""Pairs as they come, and those that no person should be asked about."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.campaign.config import CampaignConfig
from annotation.campaign.pairs import (
    GIVEN_TWICE,
    SAME,
    SIMILAR,
    Pair,
    alike,
    leave_out,
    pairs_of,
    read_pairs,
)
from annotation.campaign.push import draw_gold
from plumbline.data.records import assistant, user
from plumbline.errors import DataError

PROMPT = [user("Hello"), assistant("Hello! What is it?"), user("When do you open?")]
AT_NINE, AT_TEN = "We open at nine.", "At ten o'clock, on every day but Sunday."


def pair_of(row):
    """Return the one pair of a row."""
    (pair,), dropped = pairs_of([row], "file")
    assert not dropped.rows
    return pair


def test_our_own_format_and_trl_s_say_the_same():
    ours = pair_of({"prompt": PROMPT, "a": [assistant(AT_NINE)], "b": [assistant(AT_TEN)]})
    trl = pair_of({"prompt": PROMPT, "chosen": [assistant(AT_NINE)], "rejected": AT_TEN})
    implicit = pair_of(
        {"chosen": [*PROMPT, assistant(AT_NINE)], "rejected": [*PROMPT, assistant(AT_TEN)]}
    )
    assert ours == trl == implicit
    assert (ours.prompt, ours.a, ours.b) == (PROMPT, AT_NINE, AT_TEN)
    assert pair_of({"prompt": "Hi?", "a": "x", "b": "y"}).prompt == [user("Hi?")]


def test_ids_are_made_of_the_text_where_there_are_none():
    one = pair_of({"prompt": PROMPT, "a": AT_NINE, "b": AT_TEN})
    assert one.id == pair_of({"prompt": PROMPT, "a": AT_NINE, "b": AT_TEN}).id
    assert one.id != pair_of({"prompt": PROMPT, "a": AT_TEN, "b": AT_NINE}).id
    assert pair_of({"pair_id": "mine", "prompt": PROMPT, "a": "x", "b": "y"}).id == "mine"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": PROMPT, "a": AT_NINE}, "has no a and no b, which pairs need"),
        ({"prompt": PROMPT}, "has no a and no b, which pairs need"),
        ({"prompt": PROMPT, "a": AT_NINE, "b": None}, "has null under 'b'"),
        ({"prompt": PROMPT, "a": " ", "b": AT_TEN}, r"'a' has an empty message 1 \(assistant\)"),
        ({"prompt": [], "a": AT_NINE, "b": AT_TEN}, "but no prompt"),
        (
            {"prompt": PROMPT, "a": [assistant("x"), user("?"), assistant("z")], "b": "y"},
            "'a' has 3 messages after the prompt",
        ),
        ({"prompt": PROMPT, "a": [user("x")], "b": "y"}, "does not end with the assistant's turn"),
        ({"prompt": PROMPT, "a": "x", "b": "y", "answer": "A"}, "has the answer 'A'"),
        (
            {"chosen": [*PROMPT, assistant("x")], "rejected": [user("Z"), assistant("y")]},
            "answer different prompts",
        ),
    ],
)
def test_what_is_no_pair_is_kept_with_the_reason(row, reason):
    pairs, dropped = pairs_of([row], "file")
    assert pairs == []
    ((number, said),) = [(entry["row"], entry["reason"]) for entry in dropped.rows]
    assert number == 1
    assert re.search(reason, said)


def test_the_same_id_twice_is_one_pair():
    rows = [{"pair_id": "p", "prompt": PROMPT, "a": AT_NINE, "b": AT_TEN}] * 2
    pairs, dropped = pairs_of(rows, "file")
    assert len(pairs) == 1
    assert dropped.reasons() == {GIVEN_TWICE: 1}


def test_pairs_are_read_from_files_and_folders(tmp_path):
    row = {"pair_id": "p", "prompt": PROMPT, "a": [assistant("x")], "b": [assistant("y")]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row | {"reasons": ["disagreement"]}) + "\n")
    pairs, _ = read_pairs(tmp_path / "pairs.jsonl")
    assert pairs == [Pair("p", PROMPT, "x", "y", reasons=("disagreement",))]
    from plumbline.data.records import write_dataset

    write_dataset(
        tmp_path / "made", {"train": [row]}, kind="prompts", title="Pairs", description=""
    )
    assert read_pairs(tmp_path / "made")[0] == [Pair("p", PROMPT, "x", "y")]
    with pytest.raises(DataError, match="neither a file nor the folder"):
        read_pairs(tmp_path / "nothing")


def test_similarity_by_hand():
    # 10 characters each, one replaced: 2 of 20 are inserted or deleted, which leaves 0.9.
    assert alike("abcdefghij", "abcdefghiX", 0.9) == SIMILAR
    assert alike("abcdefghij", "abcdefghiX", 0.91) is None
    assert alike("We open  at NINE.\n", "we open at nine.", 1.0) == SAME
    assert alike("ＯＫ!", "OK!", 1.0) == SAME  # letters of full width
    assert alike("no", "yes", 0.97) is None


@given(text=st.text(min_size=1), other=st.text(min_size=1), threshold=st.floats(0.01, 1))
def test_similarity_is_mutual(text, other, threshold):
    assert alike(text, text, threshold) == SAME
    assert alike(text, other, threshold) == alike(other, text, threshold)


def pair(name, a=AT_NINE, b=AT_TEN, prompt=PROMPT, answer=None):
    return Pair(name, prompt, a, b, answer)


def test_what_nobody_can_judge_is_left_out_and_counted():
    given_ = [
        pair("good"),
        pair("same", b=AT_NINE.upper()),
        pair("near", a=AT_TEN + "!"),
        pair("long", prompt=[user("x" * 20_001)]),
        pair("nul", a="a\0b"),
        pair("turns", prompt=[user("x")] * 501),
    ]
    kept, dropped = leave_out(given_, 0.97, "pairs")
    assert [one.id for one in kept] == ["good"]
    assert {row["record"]["pair_id"]: row["reason"] for row in dropped.rows} == {
        "same": SAME,
        "near": SIMILAR,
        "long": "has a message of more than 20000 characters, which no page shows",
        "nul": "has a NUL character, which databases refuse",
        "turns": "has a prompt of more than 500 messages, which no page shows",
    }


def test_gold_items_are_drawn_of_the_pairs_whose_answer_is_known():
    pairs = [pair(f"p-{n}", answer="a" if n < 30 else None) for n in range(100)]
    drawn = draw_gold(pairs, CampaignConfig(gold_share=0.1))
    assert len(drawn) == 10
    assert all(one.answer == "a" for one in drawn)
    assert drawn == draw_gold(pairs, CampaignConfig(gold_share=0.1))
    # Two people, overlap one: queues of fifty, of which a tenth.
    people = CampaignConfig(gold_share=0.1, people=("ana", "ben"), overlap=1)
    assert len(draw_gold(pairs, people)) == 5
    assert draw_gold(pairs, CampaignConfig(gold_share=0)) == []
    assert len(draw_gold(pairs, CampaignConfig(gold_share=0.9))) == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "My campaign"}, "must be 1 to 60 lower-case letters"),
        ({"people": ("ana", "ana"), "overlap": 1}, "people names ana more than once"),
        ({"people": ("ana", "ben"), "overlap": 3}, "overlap is 3, but people names 2"),
        ({"people": ("ana",), "overlap": 1, "workspace": "w"}, "it needs people to be empty"),
        ({"flags": ("unsafe",)}, "needs two or more"),
        ({"aspects": ("is it helpful?",)}, "use 1 to 40 lower-case letters"),
        ({"aspects": ("helpful", "helpful")}, "aspects names something twice"),
        ({"people": ("../ana",), "overlap": 1}, "has a slash"),
        ({"repeat_share": 0, "repeat_distance": 5}, "it needs repeat_share above 0"),
        ({"own_questions": ("strength",)}, "one of Plumbline's own questions"),
        ({"own_questions": ("no_such_module.question",)}, "cannot be imported"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CampaignConfig(**settings)
