"""The losses of PPO: hand-worked values, properties, and gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from rl.kl import adapted, k1
from rl.losses import clipped_policy_loss, clipped_value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.5, 2.0, -2.4, True),  # gains are capped at 1.2
        (0.5, 2.0, -1.0, False),  # losses are not
        (1.5, -2.0, 3.0, False),
        (0.5, -2.0, 1.6, True),
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, clipped):
    new, old = torch.tensor([[math.log(ratio) - 1]]), torch.tensor([[-1.0]])
    found = clipped_policy_loss(new, old, torch.tensor([[advantage]]), clip=0.2)
    assert found.loss.item() == pytest.approx(loss)
    assert found.ratio.item() == pytest.approx(ratio)
    assert found.clipped.item() is clipped


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "clipped"),
    [
        (1.0, 1.0, 2.0, 0.5, False),
        (1.5, 1.0, 2.0, 0.5 * 0.8**2, True),  # as if the value had moved to 1.2 only
        (0.5, 1.0, 2.0, 0.5 * 1.5**2, False),  # the larger error counts
        (2.5, 1.0, 2.0, 0.5 * 0.8**2, True),
    ],
)
def test_value_loss_by_hand(value, old, target, loss, clipped):
    tensors = [torch.tensor([[number]]) for number in (value, old, target)]
    found = clipped_value_loss(*tensors, clip=0.2)
    assert found.loss.item() == pytest.approx(loss)
    assert found.clipped.item() is clipped


def test_at_the_old_policy_the_gradient_is_the_policy_gradient():
    logprobs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    advantages = torch.randn(3, 4, dtype=torch.float64)
    clipped_policy_loss(logprobs, logprobs.detach(), advantages, 0.2).loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)


def test_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(3)
    one, other, advantages = (
        torch.randn(2, 5, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    one.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: clipped_policy_loss(x, other, advantages, 0.2).loss, one
    )
    assert torch.autograd.gradcheck(
        lambda x: clipped_value_loss(x, other, advantages, 0.2).loss, one
    )


def test_k1_is_unbiased_for_the_divergence():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.4, 0.2])
    truth = float((p * (p / q).log()).sum())
    drawn = torch.multinomial(p, 200_000, replacement=True, generator=generator)
    assert k1(p.log()[drawn], q.log()[drawn]).mean().item() == pytest.approx(truth, abs=0.01)


def test_the_coefficient_adapts_by_hand():
    # error (3 - 2) / 2 = 0.5, cut to 0.2; 64 of 2000 responses: 0.1 * (1 + 0.2 * 0.032).
    assert adapted(0.1, 3.0, 2.0, 64, 2000) == pytest.approx(0.1 * 1.0064)
    # error -0.05, uncut.
    assert adapted(0.1, 1.9, 2.0, 100, 1000) == pytest.approx(0.1 * 0.995)
    assert adapted(0.1, 2.0, 2.0, 64, 2000) == 0.1
