"""Frozen weights in 4 bits: an evaluation in between changes no gradient."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from plumbline.lm.load import load_causal_lm, trainable_causal_lm
from plumbline.lm.quantized import keep_unpacked, training_problem
from plumbline.lm.tokenizer import load_tokenizer
from plumbline.lm.tuning import TuningConfig

pytest.importorskip("bitsandbytes")

QLORA = TuningConfig(method="qlora", rank=4)
IDS = torch.arange(3, 40)[None]


def gradients(model):
    model.zero_grad()
    model.train()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.fixture
def wide(model_of_kind, tmp_path):
    """A model without biases, of layers as wide as the processor's own kernel wants them."""
    tokenizer = load_tokenizer(model_of_kind("plain"))
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, head_dim=64,
            num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.1,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    return tmp_path


def test_an_evaluation_changes_no_gradient(wide, tools):
    model = trainable_causal_lm(wide, QLORA)
    tools.nudge(model)
    before = gradients(model)
    tools.logits(model, IDS)
    after = gradients(model)
    assert all(gradient.abs().sum() > 0 for gradient in before.values())
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=0, atol=0)


def test_biases_and_narrow_layers_are_as_good(model_of_kind, tools):
    """Qwen2 has biases, and 32 is less than a block of weights that share a scale."""
    model = trainable_causal_lm(model_of_kind("plain"), QLORA)
    tools.nudge(model)
    before = gradients(model)
    evaluated = tools.logits(model, IDS)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, before[name], rtol=0, atol=0)
    model.train()
    torch.testing.assert_close(model(input_ids=IDS).logits, evaluated, atol=1e-5, rtol=1e-4)


def test_it_holds_the_base_in_four_bits_and_trains(base_folder, tokenizer, tmp_path, tools):
    model = trainable_causal_lm(base_folder, QLORA)
    assert "Linear4bit" in {type(module).__name__ for module in model.modules()}
    tools.nudge(model)
    folder = tools.saved(model, tmp_path / "policy", base_folder, tokenizer)
    quantized = load_causal_lm(folder, quantize=True)
    torch.testing.assert_close(tools.logits(quantized), tools.logits(model))
    # The adapter may also be put on the base in full precision, which is near.
    both = torch.stack([tools.logits(m).flatten() for m in (load_causal_lm(folder), model)])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_the_check_of_this_machine_finds_gradients_that_are_wrong(monkeypatch):
    assert training_problem("cpu") is None
    from bitsandbytes.functional import has_avx512bf16

    if has_avx512bf16():  # then the layout that bitsandbytes would choose is the wrong one
        monkeypatch.setattr("plumbline.lm.quantized.keep_unpacked", lambda model: None)
        assert training_problem("cpu") is not None
    assert keep_unpacked(torch.nn.Linear(2, 2)) is None
