"""Faster arithmetic changes numbers by no more than it says."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from plumbline.lm import precision
from plumbline.lm.batches import collate
from plumbline.lm.logprobs import response_logprobs, token_logprobs
from plumbline.lm.precision import compute_precision, onednn_is_exact

SIZES = {
    "vocab_size": 150,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
}


def model_of():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def batch_of(*lengths):
    generator = torch.Generator().manual_seed(0)

    def tokens(count):
        return torch.randint(3, 150, (count,), generator=generator).tolist()

    return collate([tokens(p) for p, _ in lengths], [tokens(r) for _, r in lengths], pad_id=0)


def gradients(model, batch, precision="model", **options):
    model.zero_grad()
    with compute_precision(precision, "cpu", **options):
        said = response_logprobs(model, batch, 0.8)
    (said.logprobs * torch.linspace(-1, 1, said.logprobs.shape[1])).sum().backward()
    return said, torch.cat([p.grad.flatten() for p in model.parameters()])


def by_definition(logits, ids, temperature):
    logprobs = (logits / temperature).log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1), entropy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_and_entropy_have_the_gradients_of_their_definition(temperature):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 9, (2, 3), generator=generator)
    weights = torch.randn(2, 2, 3, generator=generator)
    start = torch.randn(2, 3, 9, generator=generator) * 3
    results = []
    for function in (by_definition, token_logprobs):
        logits = start.clone().requires_grad_()
        options = {"entropy_gradient": True} if function is token_logprobs else {}
        found = function(logits, ids, temperature, **options)
        sum((w * f).sum() for w, f in zip(weights, found, strict=True)).backward()
        results.append([*found, logits.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-5)


def test_entropy_has_no_gradient_unless_asked_for():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    ids = torch.zeros(1, 2, dtype=torch.long)
    assert not token_logprobs(logits, ids)[1].requires_grad
    logprobs, entropy = token_logprobs(logits, ids, entropy_gradient=True)
    (only_entropy,) = torch.autograd.grad(entropy.sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(by_definition(logits, ids, 1.0)[1].sum(), logits)
    torch.testing.assert_close(only_entropy, expected, atol=1e-6, rtol=1e-5)
    assert logprobs.requires_grad


def test_fast_float32_is_float32():
    batch = batch_of((30, 60), (20, 50), (10, 60))
    plain, expected = gradients(model_of(), batch, fast_float32=False)
    said, found = gradients(model_of(), batch)
    torch.testing.assert_close(said.logprobs, plain.logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_the_check_of_float32_finds_products_that_are_not():
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    assert precision._error(x) < precision._FLOAT32_ERROR

    def coarse(one, other):  # what matrix units for bfloat16 would make of it
        return one.bfloat16().float() @ other.bfloat16().float()

    assert precision._error(x, coarse) > 100 * precision._FLOAT32_ERROR


def test_bfloat16_moves_what_is_said_by_little_and_leaves_weights_in_float32():
    batch = batch_of((30, 60), (20, 50), (10, 60))
    plain, expected = gradients(model_of(), batch)
    model = model_of()
    said, found = gradients(model, batch, "bfloat16")
    assert said.logprobs.dtype is torch.float32
    assert all(p.dtype is torch.float32 for p in model.parameters())
    error = (said.logprobs - plain.logprobs).abs()
    assert 0 < float(error.mean()) < 0.01 and float(error.max()) < 0.05
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.999


def test_weights_that_move_are_seen_within_one_region():
    model = model_of()
    batch = batch_of((5, 5), (4, 6))
    with compute_precision("bfloat16", "cpu"):
        before = response_logprobs(model, batch).logprobs
        with torch.no_grad():
            model.lm_head.weight.mul_(-1)
        after = response_logprobs(model, batch).logprobs
    assert not torch.allclose(before, after, atol=0.05)


def test_settings_of_torch_are_put_back():
    flags = torch.backends.mkldnn.matmul
    before = flags.fp32_precision
    with pytest.raises(RuntimeError), compute_precision("bfloat16", "cpu"):
        raise RuntimeError
    assert flags.fp32_precision == before
    assert not torch.is_autocast_enabled("cpu")
    assert isinstance(onednn_is_exact(), bool)
