"""From scores to rewards, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rl.shaping import MISSING_EOS, shape_rewards, truncate_at_stop

SCORES = torch.tensor([7.0, -9.0, 1.0, 0.5])
FINISHED = torch.tensor([True, True, False, False])


@pytest.mark.parametrize(
    ("name", "rewards", "rejects"),
    [
        ("penalize", [7.0, -9.0, -1.0, -1.5], False),
        ("replace", [7.0, -9.0, -2.0, -2.0], False),
        ("reject", [7.0, -9.0, 1.0, 0.5], True),  # they leave the loss, which is not done here
        ("keep", [7.0, -9.0, 1.0, 0.5], False),
    ],
)
def test_what_becomes_of_cut_responses_by_hand(name, rewards, rejects):
    assert set(MISSING_EOS) == {"penalize", "replace", "reject", "keep"}
    result = MISSING_EOS[name].rewards(SCORES, FINISHED, 2.0)
    torch.testing.assert_close(result, torch.tensor(rewards))
    assert MISSING_EOS[name].rejects is rejects
    assert MISSING_EOS[name].has_penalty is (not torch.equal(result, SCORES))


def test_scores_are_clipped():
    assert shape_rewards(SCORES, whiten=False, clip=5.0).tolist() == [5.0, -5.0, 1.0, 0.5]


def test_whitening_comes_before_the_clip():
    # Mean 2, standard deviation 2 (Bessel: (4 + 0 + 4) / 2 = 4): -1, 0, 1; clipped to 0.5.
    result = shape_rewards(torch.tensor([0.0, 2.0, 4.0]), whiten=True, clip=0.5)
    torch.testing.assert_close(result, torch.tensor([-0.5, 0.0, 0.5]))


def test_equal_scores_are_whitened_to_zero():
    assert shape_rewards(torch.full((4,), 3.0), whiten=True, clip=5.0).tolist() == [0.0] * 4


def test_without_a_clip_scores_stay_as_they_are():
    assert shape_rewards(SCORES, whiten=False, clip=None).tolist() == SCORES.tolist()
    assert math.isnan(shape_rewards(torch.tensor([math.nan] * 4), whiten=False, clip=5.0)[0])


def test_responses_are_cut_behind_their_first_stop_token():
    assert truncate_at_stop([5, 6, 7, 6], False, frozenset([6])) == ([5, 6], True)
    assert truncate_at_stop([5, 6, 7], False, frozenset([9])) == ([5, 6, 7], False)
    assert truncate_at_stop([5, 6, 7], True, frozenset()) == ([5, 6, 7], True)
