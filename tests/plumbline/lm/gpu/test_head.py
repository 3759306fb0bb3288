"""The fused head: values and gradients of the plain formula, whatever the parts."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.gpu import head
from plumbline.lm.gpu.head import head_logprobs


def plain(states, weight, bias, ids, temperature):
    """The definition, by autograd in float64."""
    logits = torch.nn.functional.linear(
        states.double(), weight.double(), None if bias is None else bias.double()
    )
    normed = torch.log_softmax(logits / temperature, -1)
    entropy = -(normed.exp() * normed).sum(-1)
    return normed.gather(-1, ids.unsqueeze(-1)).squeeze(-1), entropy


@pytest.fixture(params=[1 << 24, 1], ids=["one part", "parts of 64"])
def parts(request, monkeypatch):
    monkeypatch.setattr(head, "_CPU_BYTES", request.param)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(150, 12, generator=generator)
    weight = torch.randn(31, 12, generator=generator)
    bias = torch.randn(31, generator=generator)
    ids = torch.randint(31, (150,), generator=generator)
    loss_weights = torch.randn(2, 150, generator=generator)
    return states, weight, bias, ids, loss_weights


def gradients(function, tensors, ids, temperature, loss_weights, entropy_gradient=None):
    leaves = [t.clone().requires_grad_() if t is not None else None for t in tensors]
    options = {} if entropy_gradient is None else {"entropy_gradient": entropy_gradient}
    logprobs, entropy = function(*leaves, ids, temperature, **options)
    loss = (logprobs * loss_weights[0]).sum()
    if entropy_gradient is not False:
        loss = loss + (entropy * loss_weights[1]).sum()
    return torch.autograd.grad(loss, [leaf for leaf in leaves if leaf is not None])


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients_are_those_of_log_softmax(case, temperature, has_bias):
    states, weight, bias, ids, loss_weights = case
    tensors = (states, weight, bias if has_bias else None)
    for found, expected in zip(
        head_logprobs(*tensors, ids, temperature), plain(*tensors, ids, temperature), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    found = gradients(head_logprobs, tensors, ids, temperature, loss_weights, True)
    expected = gradients(plain, tensors, ids, temperature, loss_weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_entropy_has_no_gradient_unless_it_is_asked_for(case):
    states, weight, bias, ids, loss_weights = case
    without = gradients(head_logprobs, (states, weight, bias), ids, 1.0, loss_weights, False)
    loss_weights = torch.stack([loss_weights[0], torch.zeros(150)])
    expected = gradients(plain, (states, weight, bias), ids, 1.0, loss_weights)
    for one, other in zip(without, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    _, entropy = head_logprobs(states.requires_grad_(), weight, bias, ids)
    assert not entropy.requires_grad


def test_gradients_equal_finite_differences(case):
    states, weight, bias, ids, loss_weights = case
    found = gradients(head_logprobs, (states, weight, bias), ids, 0.8, loss_weights, True)

    def loss(states, weight, bias):
        logprobs, entropy = plain(states, weight, bias, ids, 0.8)
        return float((logprobs * loss_weights[0] + entropy * loss_weights[1]).sum())

    step = 1e-4
    for number, place in ((0, (3, 5)), (0, (149, 0)), (1, (7, 2)), (2, (30,))):
        values = [tensor.double() for tensor in (states, weight, bias)]
        around = []
        for sign in (1, -1):
            moved = [value.clone() for value in values]
            moved[number][place] += sign * step
            around.append(loss(*moved))
        slope = (around[0] - around[1]) / (2 * step)
        assert float(found[number][place]) == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_only_what_trains_gets_a_gradient(case):
    states, weight, bias, ids, _ = case
    states = states.clone().requires_grad_()
    head_logprobs(states, weight, bias, ids)[0].sum().backward()
    assert states.grad is not None
    trained = weight.clone().requires_grad_()
    head_logprobs(states.detach(), trained, None, ids)[0].sum().backward()
    assert trained.grad.shape == trained.shape


def test_a_bfloat16_state_reads_a_float32_head_and_gives_it_float32_gradients(case):
    states, weight, _, ids, _ = case
    trained = weight.clone().requires_grad_()
    logprobs, _ = head_logprobs(states.bfloat16(), trained, None, ids)
    assert logprobs.dtype == torch.float32
    expected, _ = plain(states.bfloat16().float(), weight.bfloat16().float(), None, ids, 1.0)
    # A logit of about 10 is off by up to 2^-9 of itself.
    assert float((logprobs - expected).abs().max()) < 0.1
    logprobs.sum().backward()
    assert trained.grad.dtype == torch.float32
    (wanted,) = torch.autograd.grad(plain(states, trained, None, ids, 1.0)[0].sum(), trained)
    assert float((trained.grad - wanted).norm() / wanted.norm()) < 0.02


def test_a_token_that_is_nearly_certain_keeps_its_logprob():
    states = torch.tensor([[1.0]])
    weight = torch.tensor([[30.0], [0.0], [-5.0]])
    logprob, _ = head_logprobs(states, weight, None, torch.tensor([0]))
    assert float(logprob) == pytest.approx(-9.3576e-14, rel=1e-3)


def test_no_tokens_at_all(case):
    states, weight, bias, ids, _ = case
    logprobs, entropy = head_logprobs(states[:0], weight, bias, ids[:0])
    assert logprobs.shape == entropy.shape == (0,)


def test_the_logits_are_never_held_all_at_once(case, monkeypatch):
    """Nothing of the size [M, V] is made, forward or backward."""
    monkeypatch.setattr(head, "_CPU_BYTES", 1)
    states, weight, _, ids, _ = case
    largest = 0
    true_linear = torch.nn.functional.linear

    def watched(x, matrix, offset=None):
        nonlocal largest
        result = true_linear(x, matrix, offset)
        largest = max(largest, result.numel())
        return result

    monkeypatch.setattr(head.F, "linear", watched)
    leaf = states.clone().requires_grad_()
    head_logprobs(leaf, weight, None, ids)[0].sum().backward()
    assert largest == 64 * 31
