"""Log-probabilities and entropy: the values and gradients of the plain computation."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm import logprobs
from plumbline.lm.logprobs import token_logprobs


def plain(logits, ids, temperature):
    """The definition, by autograd."""
    normed = torch.log_softmax(logits.double() / temperature, -1)
    entropy = -(normed.exp() * normed).sum(-1)
    return normed.gather(-1, ids.unsqueeze(-1)).squeeze(-1), entropy


def gradient(function, logits, weights, *arguments, **options):
    leaf = logits.clone().requires_grad_()
    found = function(leaf, *arguments, **options)
    pairs = zip(found, weights, strict=True)
    sum((value * weight).sum() for value, weight in pairs if value.requires_grad).backward()
    return leaf.grad


@pytest.fixture(params=[1 << 18, 100], ids=["one part", "many parts"])
def part(request, monkeypatch):
    monkeypatch.setattr(logprobs, "_PART", request.param)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 7, 31, generator=generator)
    ids = torch.randint(31, (4, 7), generator=generator)
    weights = torch.randn(2, 4, 7, generator=generator)
    return logits, ids, weights


@pytest.mark.usefixtures("part")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_are_those_of_log_softmax(case, temperature):
    logits, ids, weights = case
    for value, expected in zip(
        token_logprobs(logits, ids, temperature), plain(logits, ids, temperature), strict=True
    ):
        torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)
    found = gradient(token_logprobs, logits, weights, ids, temperature, entropy_gradient=True)
    expected = gradient(plain, logits, weights, ids, temperature)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("part")
def test_the_entropy_has_a_gradient_only_where_it_is_asked_for(case):
    logits, ids, weights = case
    assert not token_logprobs(logits.requires_grad_(), ids)[1].requires_grad
    nothing = torch.zeros_like(weights[1])
    found = gradient(token_logprobs, logits.detach(), weights, ids)
    expected = gradient(plain, logits.detach(), [weights[0], nothing], ids, 1.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_bfloat16_logits_are_looked_at_in_float32(case):
    logits, ids, weights = case
    half = logits.bfloat16()
    logprob, entropy = token_logprobs(half, ids)
    assert logprob.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(logprob, token_logprobs(half.float(), ids)[0])
    # Only the result is rounded: bfloat16 has 8 bits.
    found = gradient(token_logprobs, half, weights, ids, entropy_gradient=True)
    expected = gradient(plain, half.float(), weights, ids, 1.0)
    torch.testing.assert_close(found.float(), expected, atol=1e-5, rtol=2**-8)


def test_logits_far_from_nought_lose_nothing():
    logits = torch.tensor([[[-1e9, 1000.0, 999.0]]])
    found = gradient(
        token_logprobs, logits, torch.ones(2, 1, 1), torch.tensor([[2]]), entropy_gradient=True
    )
    expected = gradient(plain, logits, torch.ones(2, 1, 1), torch.tensor([[2]]), 1.0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
