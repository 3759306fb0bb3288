"""Estimators of KL: exact expectations over a distribution that can be listed."""

from __future__ import annotations

import math

import pytest
import torch

from rl.kl import k1, k2, k3, next_kl_coefficient

#: Logits of a distribution over four tokens, and the probabilities of its reference.
LOGITS = torch.tensor([1.0, -0.5, 0.3, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def exact(logits):
    """KL(p || q) from its definition."""
    p = logits.softmax(0)
    return (p * (p / REFERENCE).log()).sum()


def gradient(of, logits):
    logits = logits.clone().requires_grad_()
    (result,) = torch.autograd.grad(of(logits), logits)
    return result


def as_a_loss(estimator):
    """The expected gradient of an estimator at sampled tokens: p is held, as samples are."""
    return lambda logits: (
        logits.softmax(0).detach() * estimator(logits.log_softmax(0), REFERENCE.log())
    ).sum()


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (k1, math.log(2)),
        (k2, 0.5 * math.log(2) ** 2),
        (k3, 0.5 - 1 + math.log(2)),  # q/p = 1/2
    ],
)
def test_by_hand(estimator, value):
    result = estimator(torch.tensor([[math.log(0.6)]]), torch.tensor([[math.log(0.3)]]))
    assert result.item() == pytest.approx(value)


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator):
    p = LOGITS.softmax(0)
    expected = (p * estimator(p.log(), REFERENCE.log())).sum()
    torch.testing.assert_close(expected, exact(LOGITS))


def test_k2_is_biased_and_k2_and_k3_are_never_negative():
    p = LOGITS.softmax(0)
    biased = (p * k2(p.log(), REFERENCE.log())).sum()
    assert abs(float(biased - exact(LOGITS))) > 0.01
    assert float(k1(p.log(), REFERENCE.log()).min()) < 0
    assert float(k2(p.log(), REFERENCE.log()).min()) >= 0
    assert float(k3(p.log(), REFERENCE.log()).min()) >= 0


def test_as_a_loss_k2_has_the_gradient_of_the_divergence():
    torch.testing.assert_close(gradient(as_a_loss(k2), LOGITS), gradient(exact, LOGITS))


def test_as_a_loss_k1_has_none_on_average():
    assert float(gradient(as_a_loss(k1), LOGITS).abs().max()) < 1e-12


def test_as_a_loss_k3_has_the_gradient_of_the_other_divergence():
    def reverse(logits):
        return (REFERENCE * (REFERENCE.log() - logits.log_softmax(0))).sum()

    result = gradient(as_a_loss(k3), LOGITS)
    torch.testing.assert_close(result, gradient(reverse, LOGITS))
    assert float((result - gradient(exact, LOGITS)).abs().max()) > 0.01


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_gradients_equal_finite_differences(estimator):
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimator(x.log_softmax(0), REFERENCE.log()), logits)


def test_the_coefficient_adapts_by_hand():
    # error (3 - 2) / 2 = 0.5, cut to 0.2; 64 of 2000 responses: 0.1 * (1 + 0.2 * 0.032).
    assert next_kl_coefficient(0.1, 3.0, 2.0, 64, 2000) == pytest.approx(0.1 * 1.0064)
    # error -0.05, uncut.
    assert next_kl_coefficient(0.1, 1.9, 2.0, 100, 1000) == pytest.approx(0.1 * 0.995)
    # error -1, cut to -0.2.
    assert next_kl_coefficient(0.1, 0.0, 2.0, 100, 1000) == pytest.approx(0.1 * 0.98)
    assert next_kl_coefficient(0.1, 2.0, 2.0, 64, 2000) == 0.1
