"""A packed backbone inside transformers' models: the same outputs and gradients, padding aside."""

from __future__ import annotations

import pytest
import torch
import transformers

from plumbline.lm.gpu import packed_forward, status
from plumbline.lm.gpu.packed_forward import use_packed_backbone

IDS = torch.tensor([[5, 6, 7, 8, 9], [11, 12, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])


@pytest.fixture(autouse=True)
def nothing_is_known():
    status.forget()
    yield
    status.forget()


@pytest.fixture
def packed_calls(monkeypatch):
    calls = []
    true_read = packed_forward._read
    monkeypatch.setattr(
        packed_forward, "_read", lambda *given: (calls.append(1), true_read(*given))[1]
    )
    return calls


def test_logits_and_gradients_are_those_of_the_plain_model(kind, make, packed_calls):
    plain, packed = make(kind), make(kind)
    use_packed_backbone(packed, anywhere=True)
    weights = torch.randn(2, 5, 120, generator=torch.Generator().manual_seed(1))
    for model in (plain, packed):
        logits = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
        (logits * weights)[MASK.bool()].sum().backward()
        model.seen = logits.detach()[MASK.bool()]
    assert packed_calls == [1]
    torch.testing.assert_close(packed.seen, plain.seen, atol=1e-3, rtol=1e-3)
    for one, other in zip(packed.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=5e-2, rtol=2e-3)


def test_a_reward_models_scores(make, with_adapters, packed_calls):
    whole = make("qwen3")
    scorer = transformers.Qwen3ForSequenceClassification(
        transformers.Qwen3Config(**whole.config.to_diff_dict() | {"num_labels": 1})
    ).eval()
    expected = scorer(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    use_packed_backbone(scorer, anywhere=True)
    found = scorer(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    assert packed_calls == [1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_calls_that_ask_for_more_go_the_plain_way(make, packed_calls):
    model = make("llama").eval()
    use_packed_backbone(model, anywhere=True)
    with torch.no_grad():
        out = model(input_ids=IDS, attention_mask=MASK, use_cache=True)
        assert out.past_key_values is not None
        assert model(input_ids=IDS, output_hidden_states=True).hidden_states is not None
        model(inputs_embeds=model.get_input_embeddings()(IDS))
        model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3)
    assert not packed_calls


def test_checkpointing_is_kept(make, packed_calls, monkeypatch):
    model = make("llama")
    model.gradient_checkpointing_enable()
    model.train()
    use_packed_backbone(model, anywhere=True)
    asked = []
    true_states = packed_forward.packed_states
    monkeypatch.setattr(
        packed_forward,
        "packed_states",
        lambda *given, checkpointing: (
            asked.append(checkpointing),
            true_states(*given, checkpointing=checkpointing),
        )[1],
    )
    model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits.sum().backward()
    assert asked == [True]


def test_it_is_put_in_place_once_and_reaches_adapters(make, with_adapters, packed_calls):
    model = with_adapters(make("qwen2")).eval()
    expected = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    use_packed_backbone(model, anywhere=True)
    use_packed_backbone(model, anywhere=True)
    found = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    assert packed_calls == [1]
    mask = MASK.bool()
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-3, rtol=1e-3)
    with model.disable_adapter():
        base = model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits
    assert float((base - found)[mask].abs().max()) > 0.1
