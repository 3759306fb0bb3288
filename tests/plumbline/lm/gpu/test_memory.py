"""Micro-batches by tokens: parts that fit, and a second attempt when memory runs out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plumbline.lm.gpu import memory
from plumbline.lm.gpu.memory import Room, bytes_per_token, rows_by_tokens


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 200))
def test_each_row_is_in_one_part_and_no_part_is_too_large(lengths, most):
    lengths = torch.tensor(lengths)
    parts = rows_by_tokens(lengths, most)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or int(lengths[part].sum()) <= most


def test_parts_by_hand_are_about_equal():
    lengths = torch.tensor([10, 30, 20, 40])
    assert [part.tolist() for part in rows_by_tokens(lengths, 100)] == [[0, 2, 1, 3]]
    assert [part.tolist() for part in rows_by_tokens(lengths, 60)] == [[0, 2, 1], [3]]
    assert [part.tolist() for part in rows_by_tokens(torch.full((6,), 10), 40)] == [
        [0, 1, 2],
        [3, 4, 5],
    ]


def test_work_is_undone_and_done_again_with_half_as_many(caplog):
    room, asked, undone = Room(4096), [], []

    def work(tokens):
        asked.append(tokens)
        if len(asked) == 1:
            raise torch.OutOfMemoryError("no memory")
        return "done"

    assert room.use(work, lambda: undone.append(True)) == "done"
    assert asked == [4096, 2048]
    assert undone == [True]
    assert "2,048 tokens" in caplog.text
    assert room.use(lambda tokens: tokens) == 2048


def test_it_is_tried_no_third_time():
    room, asked = Room(8), []

    def work(tokens):
        asked.append(tokens)
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        room.use(work)
    assert asked == [8, 4]


def test_bytes_of_a_token_by_hand(make, monkeypatch):
    monkeypatch.setattr(memory, "has_packed_pass", lambda model: True)
    # 3 layers of width 48 and inner width 80, 4 bytes: (9 * 48 + 3 * 80) * 4 = 2,688 a layer.
    model = make("qwen2")
    assert bytes_per_token(model, learns=False) == 2688
    assert bytes_per_token(model, learns=True) == 3 * 2688
    assert bytes_per_token(model, learns=True, checkpointing=True) == 3 * 48 * 4 + 2 * 2688
    # Without packed passes, the logits of 120 tokens are held in several forms.
    monkeypatch.setattr(memory, "has_packed_pass", lambda model: False)
    assert bytes_per_token(model, learns=True) == 3 * 2688 + 1200
