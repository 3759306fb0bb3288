"""The packed pass says what transformers' own pass says, and has its gradients."""

from __future__ import annotations

import pytest
import torch

from plumbline.lm.adapters import using_adapter
from plumbline.lm.gpu import states, status
from plumbline.lm.gpu.layers import decoder_layer
from plumbline.lm.gpu.packing import pack, pack_texts, side_by_side
from plumbline.lm.gpu.regions import SETTING, region
from plumbline.lm.gpu.states import packed_states, unknown_part
from plumbline.lm.gpu.status import FastPath, finding


@pytest.mark.parametrize("checkpointing", [False, True])
def test_states_and_gradients_are_the_models_own(
    kind, make, batch, own_states, gradients, checkpointing
):
    model = make(kind)
    assert unknown_part(model) is None
    expected = own_states(model, batch)[batch.response_mask]
    expected_gradients = gradients(model, expected)
    found = packed_states(model, pack(batch), checkpointing=checkpointing)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    found_gradients = gradients(model, found)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("role", ["default", "other", None])
def test_gradients_reach_the_named_adapter_and_nothing_else(
    role, make, with_adapters, batch, own_states, gradients
):
    model = with_adapters(make("qwen3"))
    with using_adapter(model, role):
        expected = own_states(model, batch)[batch.response_mask]
        wanted = gradients(model, expected) if role else {}
    found = packed_states(model, pack(batch), (role,))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    if role is None:
        assert not found.requires_grad
        return
    got = gradients(model, found)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=2e-3, rtol=1e-3)


def test_without_a_name_the_active_adapter_is_used(make, with_adapters, batch, own_states):
    model = with_adapters(make("llama"))
    for role in ("default", "other", None):
        with using_adapter(model, role):
            expected = own_states(model, batch)[batch.response_mask]
            found = packed_states(model, pack(batch))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_several_roles_in_one_pass_are_each_role_in_a_pass_of_its_own(
    make, with_adapters, batch, gradients
):
    model = with_adapters(make("qwen2"))
    packing, roles = pack(batch), ("other", None, "default")
    alone = torch.cat([packed_states(model, packing, (role,)) for role in roles])
    wanted = gradients(model, alone)
    together = packed_states(model, side_by_side(packing, 3), roles)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    got = gradients(model, together)
    assert wanted.keys() == got.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-3, rtol=1e-3)


def test_inside_autocast_it_is_as_near_as_the_models_own_pass(make, batch, own_states, gradients):
    model = make("llama")
    mask = batch.response_mask
    exact = own_states(model, batch)[mask]
    exact_gradients = gradients(model, exact)
    with torch.autocast("cpu", torch.bfloat16):
        own = own_states(model, batch)[mask]
        found = packed_states(model, pack(batch))
    assert found.dtype == torch.bfloat16

    def error(one, other):
        one, other = one.detach().float(), other.detach().float()
        return float((one - other).norm() / other.norm())

    assert error(found, exact) < max(0.02, 2 * error(own, exact))
    own_gradients, found_gradients = gradients(model, own), gradients(model, found)
    for name, gradient in exact_gradients.items():
        assert found_gradients[name].dtype == torch.float32
        allowed = max(0.03, 3 * error(own_gradients[name], gradient))
        assert error(found_gradients[name], gradient) < allowed


def test_a_row_alone_equals_the_row_in_a_batch(make, batch):
    model = make("mistral, short window")
    together = pack(batch).unpack(packed_states(model, pack(batch))[:, 0])
    for row in range(4):
        one = batch.rows(slice(row, row + 1))
        alone = pack(one).unpack(packed_states(model, pack(one))[:, 0])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)


def test_the_last_states_of_texts(make):
    model = make("qwen3")
    texts = [[5, 6, 7], [8], [9, 10, 0, 11, 12]]
    packing = pack_texts(texts)
    found = packed_states(model, packing)
    for row, text in enumerate(texts):
        own = model.model(input_ids=torch.tensor([text])).last_hidden_state[0, -1]
        torch.testing.assert_close(found[row], own, atol=1e-4, rtol=1e-4)


def test_what_it_does_not_know_has_a_reason(make, with_adapters):
    from transformers import GPT2Config, GPT2LMHeadModel

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2))
    assert "GPT2LMHeadModel" in unknown_part(gpt2)
    drops = make("llama")
    drops.config.attention_dropout = 0.5
    assert "attention" in unknown_part(drops.train())
    assert unknown_part(drops.eval()) is None
    adapted = with_adapters(make("llama"))
    assert unknown_part(adapted) is None
    adapted.base_model.model.model.layers[1].mlp.up_proj.lora_dropout["other"] = torch.nn.Dropout(
        0.1
    )
    assert "layer" in unknown_part(adapted.train())
    assert unknown_part(adapted.eval()) is None


def test_checkpointing_and_compiled_layers_go_together(make, batch, gradients, monkeypatch):
    """The backward pass computes a layer again, which the compiled one must survive."""
    model, packing = make("qwen2"), pack(batch)
    expected = gradients(model, packed_states(model, packing))
    status.forget()
    monkeypatch.setenv(SETTING, "1")
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(states, "decoder_layer", region(decoder_layer.__wrapped__))
    found = gradients(model, packed_states(model, packing, checkpointing=True))
    assert finding(FastPath.COMPILED, torch.device("cpu"), "decoder_layer").on
    status.forget()
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)
