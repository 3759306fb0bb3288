"""From scores to rewards, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rl.config import ShapingConfig
from rl.shaping import MISSING_EOS, shape_rewards, truncate_at_stop

SCORES = torch.tensor([7.0, -9.0, 1.0, 0.5])
FINISHED = torch.tensor([True, True, False, False])


@pytest.mark.parametrize(
    ("missing_eos", "rewards"),
    [
        ("penalize", [5.0, -5.0, -1.0, -1.5]),
        ("replace", [5.0, -5.0, -2.0, -2.0]),
        ("reject", [5.0, -5.0, 1.0, 0.5]),  # they leave the loss, which is not done here
        ("keep", [5.0, -5.0, 1.0, 0.5]),
    ],
)
def test_rewards_by_hand(missing_eos, rewards):
    assert set(MISSING_EOS) == {"penalize", "replace", "reject", "keep"}
    config = ShapingConfig(missing_eos=missing_eos).model_copy(update={"missing_eos_penalty": 2.0})
    found = shape_rewards(SCORES, FINISHED, config)
    torch.testing.assert_close(found, torch.tensor(rewards))


def test_whitening_comes_before_the_clip_and_the_penalty():
    # Mean 2, standard deviation 2 (Bessel: (4 + 0 + 4) / 2 = 4): -1, 0, 1; clipped to 0.5; then 3
    # to pay.
    config = ShapingConfig(whiten=True, clip=0.5, missing_eos_penalty=3.0)
    found = shape_rewards(torch.tensor([0.0, 2.0, 4.0]), torch.tensor([True, False, True]), config)
    torch.testing.assert_close(found, torch.tensor([-0.5, -3.0, 0.5]))


def test_equal_scores_are_whitened_to_zero():
    found = shape_rewards(
        torch.full((4,), 3.0), FINISHED, ShapingConfig(whiten=True, missing_eos="keep")
    )
    assert found.tolist() == [0.0] * 4


def test_without_a_clip_scores_stay_as_they_are():
    found = shape_rewards(SCORES, FINISHED, ShapingConfig(clip=None, missing_eos="keep"))
    assert found.tolist() == SCORES.tolist()
    assert math.isnan(shape_rewards(torch.tensor([math.nan] * 4), FINISHED, ShapingConfig())[0])


def test_responses_are_cut_behind_their_first_stop_token():
    assert truncate_at_stop([5, 6, 7, 6], False, frozenset([6])) == ([5, 6], True)
    assert truncate_at_stop([5, 6, 7], False, frozenset([9])) == ([5, 6, 7], False)
    assert truncate_at_stop([5, 6, 7], True, frozenset()) == ([5, 6, 7], True)
