"""Messages of every tool's making become conversations, or say why they do not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.data.messages import (
    conversation_from,
    hh_dialogue,
    messages_from,
    tools_from,
    unread_keys,
)
from plumbline.data.records import assistant, problem_with, user

CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize(
    "turns",
    [
        [user("Hi"), assistant("Hello")],
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        [{"role": "prompter", "text": "Hi"}, {"role": "bot", "text": "Hello"}],
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}],
            },
            assistant("Hello"),
        ],
        json.dumps([user("Hi"), assistant("Hello")]),
        "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]",
        {"role": ["user", "assistant"], "content": ["Hi", "Hello"]},
    ],
    ids=["OpenAI", "ShareGPT", "Open Assistant", "parts", "JSON", "pandas", "by column"],
)
def test_messages_of_every_tool_are_the_same_conversation(turns):
    assert messages_from(turns) == [user("Hi"), assistant("Hello")]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": CALL["function"]}]},
        {"role": "assistant", "function_call": CALL["function"]},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"role": "tool_call", "content": [{"name": "weather", "arguments": {"city": "Oslo"}}]},
    ],
    ids=["OpenAI", "without type", "older OpenAI", "LLaMA-Factory", "list"],
)
def test_calls_of_tools_are_read_in_every_usual_form(turn):
    (message,) = messages_from([turn])
    assert message == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert problem_with([message]) is None


def test_answers_of_tools_keep_what_they_answer():
    turn = {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "18"}
    assert messages_from([turn]) == [turn]
    (message,) = messages_from([{"from": "observation", "value": "18"}])
    assert message == {"role": "tool", "content": "18"}


def test_reasoning_and_weights_are_kept():
    turns = [
        user("2+2"),
        {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
        {"role": "assistant", "content": "5", "weight": 0},
        {"from": "gpt", "value": "6", "train": False},
        {"from": "gpt", "value": "7", "weight": 1},
    ]
    assert messages_from(turns)[1:] == [
        {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
        {"role": "assistant", "content": "5", "weight": 0},
        {"role": "assistant", "content": "6", "weight": 0},
        assistant("7"),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "is null, not a list"),
        (5, "is a number, not a list"),
        ("hello", "is text, not a list"),
        (["a"], "a turn 1 that is text, not an object"),
        ([user("x"), None], "a turn 2 that is null"),
        ([{"role": "narrator", "content": "x"}], "a turn 1 by 'narrator'"),
        ([{"role": ["user"], "content": "x"}], r"a turn 1 by \['user'\]"),
        ([{"content": "x"}], "a turn 1 by None"),
        ([{"role": "user"}], "has null as content of turn 1"),
        ([{"role": "user", "content": 3}], "has a number as content"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "a part of the type 'image_url' in turn 1",
        ),
        ([{"role": "assistant", "content": "x", "weight": 0.5}], "the weight 0.5 in turn 1"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "without the tool's name"),
        ([{"from": "function_call", "value": "weather()"}], "has text in turn 1 where a call"),
    ],
)
def test_what_is_no_conversation_says_why(value, reason):
    with pytest.raises(ValueError, match=reason):
        messages_from(value)


def test_dialogues_in_hh_s_marks():
    talk = "\n\nHuman: Hi there\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"
    turns = [user("Hi there"), assistant("Hello"), user("And?")]
    assert hh_dialogue(talk) == [*turns, assistant("")]
    assert conversation_from(f"{talk} Good.\nTwo lines.", "assistant") == [
        *turns,
        assistant("Good.\nTwo lines."),
    ]
    assert hh_dialogue("What does Human: mean?") is None
    assert conversation_from("What does Human: mean?", "user") == [user("What does Human: mean?")]


def test_an_answer_that_is_json_stays_text():
    for text in ('{"a": 1}', "[1, 2]", '[{"role": "clerk"}]', "[not json", "{}", "[]"):
        assert conversation_from(text, "assistant") == [assistant(text)]


def test_tools_as_a_list_and_as_text():
    tools = [{"type": "function", "function": {"name": "weather"}}]
    assert tools_from(tools) == tools_from(json.dumps(tools)) == tools
    assert tools_from("") == tools_from("[]") == []
    with pytest.raises(ValueError, match="is text, not a list of functions"):
        tools_from("a tool")


def test_keys_of_turns_that_nobody_reads_are_named():
    turns = [user("x") | {"id": 7, "model": None}, assistant("y") | {"tokens": 3}]
    assert unread_keys(turns) == {"id", "tokens"}


KEYS = st.sampled_from(["role", "from", "content", "value", "tool_calls", "weight"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@given(ANYTHING)
def test_nothing_raises_anything_but_a_reason(value):
    try:
        conversation = messages_from(value)
    except ValueError:
        return
    assert all(message["role"] and isinstance(message["content"], str) for message in conversation)
