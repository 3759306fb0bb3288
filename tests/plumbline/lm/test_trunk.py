"""The fused pass says what the model's own pass says, and has its gradients."""

from __future__ import annotations

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from plumbline.lm import fused_layers, trunk
from plumbline.lm.adapters import using_adapter
from plumbline.lm.backbone import backbone
from plumbline.lm.batches import collate

SIZES = {
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # far from uniform, so that a wrong weight shows
    "pad_token_id": 0,
}
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama, biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, gelu": (LlamaForCausalLM, LlamaConfig, {"hidden_act": "gelu"}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 100}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}
PROMPTS = [[5, 6, 8], [9], [11, 12, 13, 14, 15, 16, 17], [3, 0, 4]]
RESPONSES = [[21, 22], [31, 32, 33, 34, 35], [41], [51, 0, 53]]
BATCH = collate(PROMPTS, RESPONSES, 0)


def model_of(kind):
    torch.manual_seed(0)
    cls, config, more = KINDS[kind]
    model = cls(config(**SIZES | more))
    with torch.no_grad():  # new models have biases of 0 and norms of 1, which would hide mistakes
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "bias" in name:
                parameter.normal_(0, 0.5)
    return model


def adapted(model):
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules="all-linear"))
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "up_proj"]))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def own_pass(model, batch=BATCH):
    """The states before each response token, by transformers' own pass."""
    hidden = backbone(model)(
        input_ids=batch.ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden[:, -batch.response_mask.shape[1] - 1 : -1]


def gradients(model, states, batch=BATCH):
    """Of a loss in which every number counts differently."""
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    (states.float() * weights)[batch.response_mask].sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def no_fallback(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the model's own pass was taken")

    def use(model):
        monkeypatch.setattr(type(backbone(model)), "forward", refuse)

    return use


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("longest", [512, 4], ids=["products", "fused attention"])
def test_states_and_gradients_are_the_models_own(kind, longest, monkeypatch, no_fallback):
    monkeypatch.setattr(trunk, "LONGEST_BY_PRODUCTS", longest)
    model = model_of(kind)
    expected = own_pass(model)
    expected_gradients = gradients(model, expected)
    no_fallback(model)
    found = trunk.response_states(model, BATCH)
    mask = BATCH.response_mask
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-4, rtol=1e-4)
    found_gradients = gradients(model, found)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, atol=2e-3, rtol=1e-3)


def test_gradients_reach_the_active_adapter_and_nothing_else(no_fallback):
    model = adapted(model_of("qwen3"))
    expected = {}
    for name in ("default", "other", None):
        with using_adapter(model, name):
            states = own_pass(model)
            expected[name] = states, gradients(model, states) if name else {}
    no_fallback(model)
    for name, (states, wanted) in expected.items():
        with using_adapter(model, name):
            found = trunk.response_states(model, BATCH)
            mask = BATCH.response_mask
            torch.testing.assert_close(found[mask], states[mask], atol=1e-4, rtol=1e-4)
            if name is None:
                assert not found.requires_grad
                continue
            got = gradients(model, found)
        assert wanted.keys() == got.keys()
        for parameter, gradient in wanted.items():
            torch.testing.assert_close(got[parameter], gradient, atol=2e-3, rtol=1e-3)


def test_inside_autocast_it_is_as_near_as_the_models_own_pass(no_fallback):
    model = model_of("llama")
    exact = own_pass(model).detach()
    exact_gradients = gradients(model, own_pass(model))
    with torch.autocast("cpu", torch.bfloat16):
        own = own_pass(model)
    own_gradients = gradients(model, own)
    no_fallback(model)
    with torch.autocast("cpu", torch.bfloat16):
        found = trunk.response_states(model, BATCH)
    assert found.dtype == torch.bfloat16
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.float32

    def error(one, other):
        one, other = one.detach().float(), other.detach().float()
        return float((one - other).norm() / other.norm())

    mask = BATCH.response_mask
    assert error(found[mask], exact[mask]) < max(0.02, 2 * error(own[mask], exact[mask]))
    got = gradients(model, found)
    for name, gradient in exact_gradients.items():
        assert got[name].dtype == torch.float32
        assert error(got[name], gradient) < max(0.03, 2 * error(own_gradients[name], gradient))


def test_analytic_gradients_equal_finite_differences():
    generator = torch.Generator().manual_seed(0)

    def double(*shape):
        made = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return made.requires_grad_()

    cos, sin = double(2, 3, 4).detach(), double(2, 3, 4).detach()
    # A rotation's two halves share their angle, up to the sign.
    cos[..., 2:], sin[..., 2:] = cos[..., :2], -sin[..., :2]
    assert torch.autograd.gradcheck(
        lambda x: fused_layers._Norm.apply(x, 1e-3), double(3, 8), atol=1e-4
    )
    assert torch.autograd.gradcheck(
        lambda x: fused_layers._Rotary.apply(x, cos, sin), double(2, 3, 2, 4)
    )
    assert torch.autograd.gradcheck(fused_layers._Gated.apply, double(3, 8))


def test_a_row_alone_equals_the_row_in_a_batch():
    model = model_of("qwen2").eval()
    together = trunk.response_states(model, BATCH)
    for row, response in enumerate(RESPONSES):
        one = collate([PROMPTS[row]], [response], 0)
        alone = trunk.response_states(model, one)[0]
        torch.testing.assert_close(alone, together[row, : len(response)], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", [False, True])
def test_the_last_states_of_a_reward_model_are_its_own(kind, adapter, no_fallback):
    """Texts padded on the right, and scored by the whole model, one at a time."""
    cls, config, more = KINDS[kind]
    scorer = getattr(transformers, cls.__name__.replace("CausalLM", "SequenceClassification"))
    torch.manual_seed(0)
    model = scorer(config(**SIZES | more, num_labels=1)).eval()
    if adapter:
        model = adapted(model).eval()
    rows = [[*prompt, *response] for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    with torch.no_grad():
        expected = torch.cat([model(input_ids=torch.tensor([row])).logits for row in rows])
    assert expected.std() > 0.1
    ids, mask = torch.zeros(4, 13, dtype=torch.long), torch.zeros(4, 13, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    whole = model.get_base_model() if adapter else model
    fallback = trunk.backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False)
    ends = mask.sum(1) - 1
    no_fallback(model)
    assert trunk.is_supported(model)
    found = trunk.last_states(model, ids, mask)
    torch.testing.assert_close(
        found, fallback.last_hidden_state[torch.arange(4), ends], atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(whole.score(found), expected, atol=1e-4, rtol=1e-4)


def test_the_last_states_of_an_unknown_model_are_its_own():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2)).eval()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
    found = trunk.last_states(model, ids, torch.tensor([[1] * 4, [1, 1, 0, 0]]))
    for row, length in ((0, 4), (1, 2)):
        alone = backbone(model)(input_ids=ids[row : row + 1, :length]).last_hidden_state[0, -1]
        torch.testing.assert_close(found[row], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("why", ["architecture", "window", "dropout"])
def test_what_it_does_not_know_is_run_as_it_is(why):
    if why == "architecture":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=120, n_embd=32, n_layer=2, n_head=2)).eval()
    elif why == "window":
        torch.manual_seed(0)
        model = MistralForCausalLM(MistralConfig(**SIZES | {"sliding_window": 5})).eval()
    else:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, attention_dropout=0.5)).train()
        assert not trunk.is_supported(model)
        assert trunk.is_supported(model.eval())
    mask = BATCH.response_mask
    torch.testing.assert_close(
        trunk.response_states(model, BATCH)[mask], own_pass(model)[mask], atol=1e-5, rtol=1e-4
    )
