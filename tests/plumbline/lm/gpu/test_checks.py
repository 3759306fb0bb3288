"""The self-check of packed passes: on where they are right, off with a reason where not."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm import logprobs
from plumbline.lm.adapters import using_adapter
from plumbline.lm.gpu import checks, layers, states, status
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.status import findings
from plumbline.lm.logprobs import logprobs_and_values, response_logprobs, response_values


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


@pytest.fixture
def on_a_cpu_too(monkeypatch):
    monkeypatch.setattr(
        logprobs, "has_packed_pass", lambda model: has_packed_pass(model, anywhere=True)
    )


def only_finding():
    ((_, _, kind), found) = next(iter(findings().items()))
    return kind, found


def test_known_decoders_are_found_right(kind, make):
    model = make(kind)
    assert has_packed_pass(model, anywhere=True)
    name, found = only_finding()
    assert found.on
    assert name == f"{type(model).__name__}, float32, whole"
    assert "off by" in found.reason


def test_a_cpu_keeps_its_own_passes(make):
    assert not has_packed_pass(make("qwen2"))
    assert not findings()


def test_adapters_are_looked_at_apart(make, with_adapters):
    model = with_adapters(make("llama"))
    assert has_packed_pass(model, anywhere=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert has_packed_pass(model, anywhere=True)
    kinds = {kind for _, _, kind in findings()}
    assert kinds == {
        "LlamaForCausalLM, float32, with adapters",
        "LlamaForCausalLM, bfloat16, with adapters",
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("spoiled", ["values", "gradients"])
def test_a_pass_that_is_wrong_is_not_used(make, monkeypatch, caplog, spoiled, precision):
    true_layer = states.decoder_layer

    def wrong(x, *rest):
        result = true_layer(x, *rest)
        return 1.1 * result if spoiled == "values" else Halved.apply(result)

    monkeypatch.setattr(states, "decoder_layer", wrong)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        assert not has_packed_pass(make("qwen2"), anywhere=True)
    _, found = only_finding()
    assert not found.on
    assert "off for Qwen2ForCausalLM" in caplog.text


def test_a_kernel_that_is_wrong_in_16_bits_alone_is_not_used(make, monkeypatch):
    true_attention = layers.packed_attention

    def wrong(q, *rest):
        mixed = true_attention(q, *rest)
        return mixed if q.dtype == torch.float32 else 1.3 * mixed

    monkeypatch.setattr(layers, "packed_attention", wrong)
    with torch.autocast("cpu", torch.bfloat16):
        assert not has_packed_pass(make("qwen2"), anywhere=True)
    assert has_packed_pass(make("qwen2"), anywhere=True)


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


def test_a_pass_that_fails_is_not_used(make, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(states, "decoder_layer", broken)
    assert not has_packed_pass(make("qwen2"), anywhere=True)
    assert "no such kernel" in caplog.text


def test_an_unknown_model_is_read_plainly():
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2))
    assert not has_packed_pass(gpt2, anywhere=True)
    assert "not one of the decoders" in only_finding()[1].reason


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_plain_way(
    make, with_adapters, batch, monkeypatch, temperature
):
    model = with_adapters(make("qwen3")).eval()
    torch.manual_seed(4)
    head = torch.nn.Linear(48, 1)

    def value_head(hidden):
        return head(hidden).squeeze(-1)

    for role in ("default", "other", None):
        with using_adapter(model, role):
            expected, values = logprobs_and_values(model, batch, value_head, temperature)
            with monkeypatch.context() as patch:
                patch.setattr(logprobs, "has_packed_pass", lambda _: True)
                found, found_values = logprobs_and_values(model, batch, value_head, temperature)
                alone = response_values(model, batch, value_head)
        for one, other in zip(
            [*found, found_values, alone], [*expected, values, values], strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_packed_way_is_taken_where_it_is_right(make, batch, on_a_cpu_too, monkeypatch):
    model = make("llama").eval()
    expected = response_logprobs(model, batch)

    def refuse(*_, **__):
        raise AssertionError("the plain way was taken")

    monkeypatch.setattr(logprobs, "response_logits", refuse)
    torch.testing.assert_close(response_logprobs(model, batch).logprobs, expected.logprobs)
    assert checks.has_packed_pass(model, anywhere=True)
