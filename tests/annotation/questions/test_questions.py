"""Labelling questions: every row of the table is complete, and says what an answer means."""

from __future__ import annotations

import sys
from dataclasses import fields
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.campaign.config import CampaignConfig
from annotation.campaign.vote_texts import choice_text, votes_text
from annotation.questions.answers import parse_answer, simulate_answer
from annotation.questions.form import (
    LONGEST_GUIDELINES,
    form_of,
    guidelines,
    problem_with_showing,
    record_fields,
)
from annotation.questions.question import Judgment, about_the_pair
from annotation.questions.table import QUESTIONS
from plumbline.data.labels import CHOICES, Label
from plumbline.data.records import assistant, user
from plumbline.errors import ConfigError

PROMPT = [user("Hello"), assistant("Hello! What is it?"), user("When do you open?")]
EVERYTHING = CampaignConfig(aspects=("helpful", "tone_of_voice"))
LABEL = {
    "pair_id": "p",
    "annotator": "p-1",
    "source": "argilla",
    "created_at": "2026-01-05T09:00:00+00:00",
    "shown_first": "a",
}


# Every row of the table.


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_every_question_has_a_form_a_guideline_a_meaning_and_a_simulation(name):
    question = QUESTIONS[name]
    form = question.form(EVERYTHING)
    assert form, "it asks nothing"
    assert all(part.title and part.name for part in form)
    assert question.guideline(EVERYTHING).strip(), "the guidelines do not explain it"
    judgment = Judgment("b", 0.99, "B gives the right date.")
    values = question.simulate(judgment, EVERYTHING, Random(0))
    assert set(values) <= {part.name for part in form}
    for part in form:
        if part.name in values and part.options:
            assert values[part.name] in [value for value, _ in part.options]
    meaning = question.parse(values | {"choice": "b"}, "a", EVERYTHING)
    assert set(meaning) <= {field.name for field in fields(Label)}


def test_a_simulated_answer_means_what_was_simulated():
    judgment = Judgment("b", 0.8, "B gives the right date.")
    values = simulate_answer(judgment, EVERYTHING, Random(0))
    assert values["choice"] == "b"
    # The pair's a was shown as B: choosing B is choosing a.
    label = Label(**LABEL, **parse_answer(values, "b", EVERYTHING))
    assert (label.choice, label.strength) == ("a", 2)
    assert label.rationale == "B gives the right date."
    assert label.aspects == {"helpful": "a", "tone_of_voice": "a"}


def test_questions_are_asked_in_order_and_only_the_choice_must_be_answered():
    form = form_of(EVERYTHING)
    assert [question.name for question in form.questions] == [
        "choice", "strength", "aspect_helpful", "aspect_tone_of_voice", "flags", "rationale",
    ]  # fmt: skip
    assert [question.name for question in form.questions if question.required] == ["choice"]
    assert dict(form.questions[0].options).keys() == set(CHOICES)
    assert form.questions[3].title == "Which is more tone of voice?"
    assert [(field.name, field.kind) for field in form.fields] == [
        ("prompt", "chat"), ("response_a", "text"), ("response_b", "text"),
    ]  # fmt: skip


def test_strength_is_asked_in_words_and_only_after_a_preference():
    (strength,) = QUESTIONS["strength"].form(EVERYTHING)
    assert strength.only_after == ("choice", ("a", "b"))
    assert [words for _, words in strength.options] == [
        "slightly better", "clearly better", "much better",
    ]  # fmt: skip


def test_a_question_that_is_turned_off_is_neither_in_the_form_nor_in_the_guidelines():
    bare = CampaignConfig(strength=False, rationale=False, flags=())
    assert [question.name for question in form_of(bare).questions] == ["choice"]
    assert "By how much" not in guidelines(bare)
    assert "The other questions" not in guidelines(bare)
    assert simulate_answer(Judgment("a", 0.9, "x"), bare, Random(0)) == {"choice": "a"}
    full = guidelines(CampaignConfig(aspects=("honest",)))
    for words in ("By how much", "(honest)", "unsafe, personal data", "**Why?**"):
        assert words in full
    assert len(full) < LONGEST_GUIDELINES


# What an answer means.


@given(choice=st.sampled_from(CHOICES), side=st.sampled_from(["a", "b"]))
def test_an_answer_is_about_the_text_wherever_it_was_shown(choice, side):
    shown = record_fields(PROMPT, "nine", "ten", side)
    meant = {"a": shown["response_a"], "b": shown["response_b"]}
    texts = {"a": "nine", "b": "ten"}
    found = about_the_pair(choice, side)
    if choice in ("a", "b"):
        assert texts[found] == meant[choice]
    else:
        assert found == choice
    assert about_the_pair(found, side) == choice


@pytest.mark.parametrize(("stored", "expected"), [("2", 2), (3, 3), (None, None)])
def test_the_strength_is_read_as_a_word_s_number_and_as_an_older_rating(stored, expected):
    parsed = parse_answer({"choice": "a", "strength": stored}, "a", CampaignConfig())
    assert parsed.get("strength") == expected


def test_a_strength_without_a_preference_means_nothing():
    assert "strength" not in parse_answer({"choice": "tie", "strength": "2"}, "a", EVERYTHING)


def test_an_answer_without_a_choice_is_no_label():
    assert "choice" not in parse_answer({"rationale": "both are odd"}, "a", EVERYTHING)


# A question of the user's own.

OWN = '''
from annotation.argilla.form import Question
from annotation.questions.question import LabelingQuestion

def confidence():
    """How sure the labeller is, as an aspect of the label."""
    options = (("1", "Not sure"), ("2", "Sure"))
    return LabelingQuestion(
        name="confidence",
        form=lambda config: (Question("confidence", "How sure are you?", "one", options),),
        guideline=lambda config: "- **How sure are you?** Be honest.",
        parse=lambda values, shown_first, config: (
            {"aspects": {"confidence": values["confidence"]}} if "confidence" in values else {}
        ),
        simulate=lambda judgment, config, random: {
            "confidence": "2" if judgment.confidence > 0.75 else "1"
        },
    )

def wrong_field():
    return LabelingQuestion("wrong", lambda config: (), lambda config: "",
        lambda values, first, config: {"mood": 1}, lambda judgment, config, random: {})

def taken():
    return LabelingQuestion("flags", lambda config: (), lambda config: "",
        lambda values, first, config: {}, lambda judgment, config, random: {})

def nothing():
    return 3
'''


@pytest.fixture
def own_questions(tmp_path, monkeypatch):
    (tmp_path / "my_questions.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_questions", None)
    yield
    sys.modules.pop("my_questions", None)


def test_a_question_of_one_s_own_is_asked_explained_parsed_and_simulated(own_questions):
    config = CampaignConfig(own_questions=("my_questions.confidence",))
    assert [question.name for question in config.questions()][-1] == "confidence"
    assert form_of(config).questions[-1].title == "How sure are you?"
    assert "Be honest" in guidelines(config)
    values = simulate_answer(Judgment("a", 0.9, "x"), config, Random(0))
    label = Label(**LABEL, **parse_answer(values, "a", config))
    assert label.aspects == {"confidence": "2"}
    # Its code is part of the identity of what is made with it.
    assert config.identity()["own_questions"][0]["function"] == "my_questions.confidence"


@pytest.mark.parametrize(
    ("name", "message"),
    [("taken", "so is one of Plumbline's"), ("nothing", "returns int, not a LabelingQuestion")],
)
def test_a_question_that_cannot_be_one_is_refused(own_questions, name, message):
    with pytest.raises(ValueError, match=message):
        CampaignConfig(own_questions=(f"my_questions.{name}",))


def test_a_question_may_set_only_fields_of_a_label(own_questions):
    config = CampaignConfig(own_questions=("my_questions.wrong_field",))
    with pytest.raises(ConfigError, match="'wrong' sets mood, but a question may set only"):
        parse_answer({"choice": "a"}, "a", config)


# What a record shows.


def test_what_is_shown_as_a_is_what_was_drawn_to_come_first():
    shown = record_fields(PROMPT, "nine", "ten", "a")
    assert shown == {"prompt": PROMPT, "response_a": "nine", "response_b": "ten"}
    assert record_fields(PROMPT, "nine", "ten", "b")["response_a"] == "ten"


def test_argilla_s_own_page_renders_no_markdown_unless_asked():
    assert not any(field.markdown for field in form_of(CampaignConfig()).fields)
    assert all(f.markdown for f in form_of(CampaignConfig(argilla_markdown=True)).fields)


@pytest.mark.parametrize(
    ("prompt", "responses", "reason"),
    [
        (PROMPT, ("x", "y"), None),
        ([user("x")] * 501, ("x", "y"), "more than 500 messages"),
        ([user("x" * 20_001)], ("x", "y"), "message of more than 20000"),
        (PROMPT, ("x" * 100_001, "y"), "response of more than 100000"),
        (PROMPT, ("x\0", "y"), "NUL"),
    ],
)
def test_texts_that_no_page_can_show_are_left_out(prompt, responses, reason):
    found = problem_with_showing(prompt, responses)
    assert found is None if reason is None else reason in found


def test_guidelines_come_from_a_file(tmp_path):
    file = tmp_path / "guidelines.md"
    file.write_text("Choose wisely.\n")
    assert guidelines(CampaignConfig(guidelines=file)) == "Choose wisely."
    file.write_text("x" * (LONGEST_GUIDELINES + 1))
    with pytest.raises(ConfigError, match="10001 characters"):
        guidelines(CampaignConfig(guidelines=file))
    with pytest.raises(ConfigError, match="cannot be read"):
        guidelines(CampaignConfig(guidelines=tmp_path / "none.md"))


# What a senior labeller reads.

VOTE = Label(
    **LABEL | {"shown_first": "b"},
    choice="a",
    rationale="B is wrong",
    strength=3,
    flags=("unsafe",),
)


def test_answers_in_words():
    assert choice_text("a", 2) == "A is better (clearly)"
    assert choice_text("tie", None) == "About the same"


def test_a_senior_labeler_reads_votes_about_what_they_see():
    # The voter saw a as B and chose it; the senior sees a as A.
    text = votes_text("a", [VOTE], ["low_confidence", "flag:unsafe"])
    assert text.splitlines() == [
        "You see this pair because the outcome is uncertain; somebody reported unsafe.",
        "- p-1: A is better (much) [unsafe]: “B is wrong” (saw A and B the other way round)",
    ]
    # The senior sees what the voter saw.
    assert votes_text("b", [VOTE], []) == "- p-1: B is better (much) [unsafe]: “B is wrong”"
    assert votes_text("b", [], []) == "Nobody has voted yet."


def test_a_senior_labeler_s_page_shows_votes_only_if_it_should():
    names = lambda config: [f.name for f in form_of(config, adjudication=True).fields]  # noqa: E731
    assert names(CampaignConfig())[-1] == "votes"
    assert "votes" not in names(CampaignConfig(show_votes=False))
    assert "votes" not in [field.name for field in form_of(CampaignConfig()).fields]
