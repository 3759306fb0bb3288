"""Many rows at once have the ids of one after the other, and each its own refusal."""

from __future__ import annotations

import pytest

from plumbline.data.records import assistant, user
from plumbline.lm import token_batches
from plumbline.lm.chat import (
    ConversationRefusedError,
    encode_demonstration,
    encode_demonstrations,
    encode_response,
    encode_responses,
)
from plumbline.lm.tokenizer import load_tokenizer
from tests.model_kinds import KINDS

RESPONSES = ["Blue.", "\n\nBlue. ", "", "Blue. <|im_end|> Red", "é red"]
ROWS = [
    ([user("One?")], RESPONSES),
    ([user("One?"), user("And two?")], RESPONSES[:2]),  # refused where roles must alternate
    ([user("half \ud800")], ["Blue."]),
    ([user("One?"), assistant("First.\n"), user(" Two?")], ["Blue.", "half \udc00"]),
    ([user("Describe the red item.")], RESPONSES[::-1]),
]
TALKS = [
    [user("One?"), assistant("First."), user("Two?"), assistant(" Second.\n")],
    [user("One?"), user("Two?"), assistant("Second.")],
    [user("One?"), assistant("half \ud800")],
    [user("One?"), assistant("First.") | {"weight": 0}, user("Two?"), assistant("")],
]


def one_by_one(encode):
    """Return what a row gives by itself, or its refusal."""
    try:
        return encode()
    except ConversationRefusedError as error:
        return str(error)


def said(rows):
    return [str(row) if isinstance(row, ConversationRefusedError) else row for row in rows]


@pytest.fixture(params=KINDS)
def tokenizer_of_kind(request, model_of_kind):
    return load_tokenizer(model_of_kind(request.param))


def test_many_responses_are_those_of_each_alone(tokenizer_of_kind):
    tokenizer = tokenizer_of_kind

    def alone(prompt, responses):
        encoded = [encode_response(tokenizer, prompt, response) for response in responses]
        return encoded[0].prompt_ids, [ids for _, ids in encoded]

    expected = [one_by_one(lambda row=row: alone(*row)) for row in ROWS]
    found = said(encode_responses(tokenizer, ROWS))
    assert found == expected
    assert "half a character" in found[2] and "half a character" in found[3]
    assert len(found[0][1]) == 5


@pytest.mark.parametrize("last", [False, True])
def test_many_demonstrations_are_those_of_each_alone(last, tokenizer_of_kind):
    tokenizer = tokenizer_of_kind

    def alone(talk):
        return encode_demonstration(tokenizer, talk, last_turn_only=last)

    expected = [one_by_one(lambda talk=talk: alone(talk)) for talk in TALKS]
    found = encode_demonstrations(tokenizer, [(talk, ()) for talk in TALKS], last_turn_only=last)
    assert said(found) == expected


def test_a_fast_way_that_differs_is_not_taken(model_of_kind, monkeypatch):
    """Once it gives other ids than the plain one, no row of this tokenizer is read by it."""
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    asked = []

    def wrong(backend, texts):
        asked.append(len(texts))
        return [[0] for _ in texts]

    monkeypatch.setattr(token_batches, "_fast", wrong)
    rows = [([user(f"Number {n}?")], ["Blue."]) for n in range(40)]
    for _ in range(2):
        (prompt_ids, (ids,)), *_ = encode_responses(tokenizer, rows)
        assert (prompt_ids, ids) == encode_response(tokenizer, *rows[0][:1], "Blue.")
    assert asked == [32]


def test_a_tokenizer_that_would_cut_texts_takes_the_plain_way(model_of_kind):
    """Truncation set in a tokenizer's file holds for its backend, not for how it is called."""
    tokenizer = load_tokenizer(model_of_kind("chatml"))
    row = ([user("A longer text than five tokens of it.")], ["Blue."])
    ((whole, _),) = encode_responses(tokenizer, [row])
    tokenizer.backend_tokenizer.enable_truncation(5)
    ((cut, _),) = encode_responses(tokenizer, [row])
    assert cut == whole and len(whole) > 5
