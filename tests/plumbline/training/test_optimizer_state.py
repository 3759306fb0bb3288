"""An optimiser's state by the names of weights: it is found again in other groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from plumbline.training.sharding import load_moments, load_optimizer, moments_of


@pytest.fixture
def weights():
    return {"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(3, 2))}


def stepped(weights, groups):
    """Return AdamW after a step in which a weight's gradient is its size."""
    optimizer = torch.optim.AdamW(groups)
    for weight in weights.values():
        weight.grad = torch.full_like(weight, float(weight.numel()))
    optimizer.step()
    return optimizer


def test_moments_are_those_of_the_same_weights_in_other_groups(weights):
    kept = moments_of(stepped(weights, list(weights.values())), weights)
    other = torch.optim.AdamW([{"params": [weights["b"]]}, {"params": [weights["a"]]}])
    load_moments(other, weights, kept)
    for name, size in (("a", 2.0), ("b", 6.0)):
        found = other.state[weights[name]]
        # AdamW's first moment after one step: (1 - 0.9) of the gradient.
        assert torch.allclose(found["exp_avg"], torch.full_like(weights[name], 0.1 * size))
        assert float(found["step"]) == 1
    assert [len(group["params"]) for group in other.param_groups] == [1, 1]


def test_a_weight_that_never_had_a_gradient_has_no_moments(weights):
    optimizer = torch.optim.AdamW(list(weights.values()))
    weights["a"].grad = torch.ones(2)
    optimizer.step()
    kept = moments_of(optimizer, weights)
    assert list(kept) == ["a"]
    other = torch.optim.AdamW(list(weights.values()))
    load_moments(other, weights, kept)
    assert weights["b"] not in other.state


def test_without_shares_a_state_is_taken_as_it_is(weights):
    optimizer = stepped(weights, list(weights.values()))
    other = torch.optim.AdamW(list(weights.values()))
    load_optimizer(other, optimizer.state_dict())
    assert torch.equal(
        other.state[weights["b"]]["exp_avg"], optimizer.state[weights["b"]]["exp_avg"]
    )
