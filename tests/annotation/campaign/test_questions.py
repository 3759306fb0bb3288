"""What is shown and asked, and what an answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.campaign.config import CampaignConfig
from annotation.campaign.items import Item
from annotation.campaign.push import what_others_said
from annotation.campaign.questions import (
    LONGEST_GUIDELINES,
    content,
    form_of,
    guidelines,
    in_words,
    unshown,
)
from plumbline.data.labels import CHOICES, Label
from plumbline.data.records import assistant, user
from plumbline.errors import ConfigError

PROMPT = [user("Hello"), assistant("Hello! What is it?"), user("When do you open?")]


def test_what_is_shown_as_a_is_what_was_drawn_to_come_first():
    shown = content(PROMPT, "nine", "ten", "a")
    assert shown == {"prompt": PROMPT, "response_a": "nine", "response_b": "ten"}
    assert content(PROMPT, "nine", "ten", "b")["response_a"] == "ten"


@given(choice=st.sampled_from(CHOICES), side=st.sampled_from(["a", "b"]))
def test_an_answer_is_about_the_text_wherever_it_stood(choice, side):
    shown = content(PROMPT, "nine", "ten", side)
    meant = {"a": shown["response_a"], "b": shown["response_b"]}
    texts = {"a": "nine", "b": "ten"}
    found = unshown(choice, side)
    if choice in ("a", "b"):
        assert texts[found] == meant[choice]
    else:
        assert found == choice
    assert unshown(found, side) == choice


def test_all_questions_are_asked_and_only_the_choice_must_be_answered():
    form = form_of(CampaignConfig(aspects=("helpful", "tone_of_voice")))
    assert [question.name for question in form.questions] == [
        "choice", "strength", "aspect_helpful", "aspect_tone_of_voice", "flags", "rationale",
    ]  # fmt: skip
    assert [question.name for question in form.questions if question.required] == ["choice"]
    assert dict(form.questions[0].options).keys() == set(CHOICES)
    assert form.questions[3].title == "Which is more tone of voice?"
    assert [(field.name, field.kind) for field in form.fields] == [
        ("prompt", "chat"), ("response_a", "text"), ("response_b", "text"),
    ]  # fmt: skip


def test_what_is_not_asked_is_neither_in_the_form_nor_in_the_guidelines():
    bare = CampaignConfig(strength=False, rationale=False, flags=())
    assert [question.name for question in form_of(bare).questions] == ["choice"]
    assert "By how much" not in guidelines(bare)
    assert "The other questions" not in guidelines(bare)
    full = guidelines(CampaignConfig(aspects=("honest",)))
    for words in ("By how much", "(honest)", "unsafe, personal data", "**Why?**"):
        assert words in full
    assert len(full) < LONGEST_GUIDELINES


def test_no_text_is_rendered_unless_asked():
    assert not any(field.markdown for field in form_of(CampaignConfig()).fields)
    assert all(field.markdown for field in form_of(CampaignConfig(markdown=True)).fields)


def test_guidelines_come_from_a_file(tmp_path):
    file = tmp_path / "guidelines.md"
    file.write_text("Choose wisely.\n")
    assert guidelines(CampaignConfig(guidelines=file)) == "Choose wisely."
    file.write_text("x" * (LONGEST_GUIDELINES + 1))
    with pytest.raises(ConfigError, match="10001 characters"):
        guidelines(CampaignConfig(guidelines=file))
    with pytest.raises(ConfigError, match="cannot be read"):
        guidelines(CampaignConfig(guidelines=tmp_path / "none.md"))


def test_answers_in_words():
    assert in_words("a", 2) == "A is better (clearly)"
    assert in_words("tie", None) == "About the same"


VOTE = Label(
    pair_id="p",
    annotator="p-1",
    source="argilla",
    choice="a",
    created_at="2026-01-05T09:00:00+00:00",
    shown_first="b",
    rationale="B is wrong",
    strength=3,
    flags=("unsafe",),
)


def test_a_senior_labeler_reads_votes_about_what_they_see():
    # The voter saw a as B and chose it; the senior sees a as A.
    item = Item("i", "p", "adjudication:eva", "a", "adjudication")
    said = what_others_said(item, [VOTE], ["low_confidence", "flag:unsafe"])
    assert said.splitlines() == [
        "You see this because of: low confidence, flag: unsafe.",
        "- p-1: A is better (much) [unsafe]: “B is wrong” (saw A and B the other way round)",
    ]
    # The senior sees what the voter saw.
    same = Item("i", "p", "adjudication:eva", "b", "adjudication")
    assert what_others_said(same, [VOTE], []) == (
        "- p-1: B is better (much) [unsafe]: “B is wrong”"
    )
    assert what_others_said(same, [], []) == "Nobody has voted yet."


def test_a_senior_labeler_s_page_shows_votes_only_if_it_should():
    names = lambda config: [f.name for f in form_of(config, adjudication=True).fields]  # noqa: E731
    assert names(CampaignConfig())[-1] == "votes"
    assert "votes" not in names(CampaignConfig(show_votes=False))
    assert "votes" not in [field.name for field in form_of(CampaignConfig()).fields]
