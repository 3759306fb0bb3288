"""Pairs as ids: read one after the other, and kept in a file without what nobody needs."""

from __future__ import annotations

import copy

import pytest

from plumbline.data.records import (
    assistant,
    iterate_dataset,
    prompt_id,
    read_dataset,
    user,
    write_dataset,
)
from plumbline.dropped import Dropped
from plumbline.errors import DataError
from plumbline.lm.context import LengthLimit
from plumbline.training.pairs import encode_pairs


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {
            "pair_id": str(number), "prompt": [user(f"How much is {number}?")], "margin": 0.5,
            "chosen": [assistant("It is eleven.")], "rejected": [assistant("It is ten.")],
        }
        for number in range(2500)
    ]  # fmt: skip
    write_dataset(tmp_path, {"train": rows}, kind="preference", title="", description="")
    return tmp_path, rows


def test_rows_that_are_read_one_after_the_other_are_the_same(pairs):
    """More rows than are read at once."""
    folder, rows = pairs
    assert list(iterate_dataset(folder, "train")) == rows
    assert read_dataset(folder, "train") == rows


def test_what_is_kept_of_a_pair(pairs, tokenizer):
    folder, rows = pairs
    drawn = (row for row in iterate_dataset(folder, "train"))
    first, *_, last = encode_pairs(drawn, tokenizer, LengthLimit(512, "is too long"), Dropped())
    assert first.row == {"pair_id": "0", "margin": 0.5}  # no texts
    assert last.prompt_id == prompt_id(rows[-1]["prompt"])


def test_where_no_pair_is_left_their_number_is_said(pairs, tokenizer):
    rows = iterate_dataset(pairs[0], "train")
    with pytest.raises(DataError, match="None of 2500 pairs can be trained on"):
        encode_pairs(rows, tokenizer, LengthLimit(3, "is too long"), Dropped())


def test_a_pair_with_a_token_that_the_model_has_no_row_for_is_left_out(pairs, tokenizer):
    """Added to the tokenizer alone, it would be trained on as the mean of all tokens."""
    rows = pairs[1][:3]
    rows[1] = rows[1] | {"chosen": [assistant("It is <eleven>.")]}
    limit = LengthLimit(512, "is too long", rows=len(tokenizer))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<eleven>"]})
    dropped = Dropped()
    assert len(encode_pairs(iter(rows), tokenizer, limit, dropped)) == 2
    (left,) = dropped.rows
    assert left["row"] == 2 and left["reason"].startswith(
        f"has the token '<eleven>' (id {limit.rows}), and the model has rows for {limit.rows} "
    )
