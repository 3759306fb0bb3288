"""Packing: real tokens behind each other, worked by hand."""

from __future__ import annotations

import torch

from plumbline.lm.batches import collate
from plumbline.lm.gpu.packing import pack, pack_texts, side_by_side


def test_a_batch_by_hand():
    batch = collate([[5, 6, 8], [9]], [[21], [31, 32]], 0, [[True], [True, False]])
    packing = pack(batch)
    assert packing.ids[:7].tolist() == [5, 6, 8, 21, 9, 31, 32]
    assert packing.positions[:7].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert len(packing.ids) == 64
    assert not packing.ids[7:].any()
    assert packing.offsets.tolist() == [0, 4, 7, 64]
    assert packing.offsets.dtype == torch.int32
    assert packing.longest == 64
    # The token before 21 is 8, and that before 31 is 9. 32 is not the policy's.
    assert packing.predicts.tolist() == [2, 4]
    assert packing.response_ids.tolist() == [21, 31]
    assert packing.unpack(torch.tensor([1.0, 2.0])).tolist() == [[1.0, 0.0], [2.0, 0.0]]


def test_texts_by_hand():
    packing = pack_texts([[5, 6], [7, 8, 9]])
    assert packing.ids[:5].tolist() == [5, 6, 7, 8, 9]
    assert packing.predicts.tolist() == [1, 4]
    assert packing.unpack(torch.tensor([1.0, 2.0])).tolist() == [[1.0], [2.0]]


def test_places_are_those_of_a_rectangle():
    packing = pack(collate([[5, 6, 8], [9]], [[21], [31, 32]], 0))
    rectangle = torch.full((3 * packing.longest,), -1)
    rectangle[packing.places] = packing.ids
    assert rectangle.view(3, -1)[0, :5].tolist() == [5, 6, 8, 21, -1]
    assert rectangle.view(3, -1)[1, :4].tolist() == [9, 31, 32, -1]


def test_the_longest_sequence_is_stated_as_a_round_number():
    assert pack(collate([[7] * 200], [[7] * 57], 0)).longest == 320


def test_side_by_side_repeats_all_but_the_padding():
    batch = collate([[5, 6, 8], [9]], [[21], [31, 32]], 0)
    twice = side_by_side(pack(batch), 2)
    assert twice.ids[:14].tolist() == [5, 6, 8, 21, 9, 31, 32] * 2
    assert twice.offsets.tolist() == [0, 4, 7, 11, 14, 64]
    assert twice.predicts.tolist() == [2, 4, 5, 9, 11, 12]
    both = twice.unpack(torch.arange(6.0) + 1)
    assert both.tolist() == [[1, 0], [2, 3], [4, 0], [5, 6]]


def test_round_numbers_need_no_padding():
    packing = pack(collate([[7] * 60], [[7] * 4], 0))
    assert packing.offsets.tolist() == [0, 64, 64]
