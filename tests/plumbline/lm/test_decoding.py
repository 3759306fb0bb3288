"""Decoding from a snapshot says what the model itself says."""

from __future__ import annotations

import pytest
import torch
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

from plumbline.lm.adapters import using_adapter
from plumbline.lm.decoding import products
from plumbline.lm.decoding.snapshot import take_snapshot
from plumbline.lm.generation import SamplingConfig, generate, sample_tokens

V, PAD, END = 200, 0, 7
SIZES = {
    "vocab_size": V,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # far from uniform, so that a wrong weight shows
    "pad_token_id": PAD,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama, tied": (LlamaForCausalLM, LlamaConfig, {"tie_word_embeddings": True}),
    "llama, biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, llama3 rope": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),
    "llama, linear rope": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LINEAR_ROPE}),
    "llama, wide heads": (LlamaForCausalLM, LlamaConfig, {"head_dim": 20}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "mistral, wide window": (MistralForCausalLM, MistralConfig, {"sliding_window": 100}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}
PROMPTS = [[5, 6, 8], [9], [11, 12, 13, 14, 15, 16, 17], [3, PAD, 4], [20] * 40]


def model_of(kind):
    torch.manual_seed(0)
    cls, config, more = KINDS[kind]
    model = cls(config(**SIZES | more)).eval()
    with torch.no_grad():  # new models have biases of 0 and norms of 1, which would hide mistakes
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "bias" in name:
                parameter.normal_(0, 0.5)
    return model


def sample(model, prompts=PROMPTS, **options):
    value_head = options.pop("value_head", None)
    config = SamplingConfig(**{"max_new_tokens": 40, "temperature": 0.7} | options)
    return generate(
        model,
        prompts,
        range(len(prompts)),
        config,
        end_ids=frozenset({END}),
        pad_id=PAD,
        value_head=value_head,
    )


def assert_same(found, expected):
    assert [g.ids for g in found] == [g.ids for g in expected]
    assert [g.finished for g in found] == [g.finished for g in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_says_what_the_model_says(kind):
    model = model_of(kind)
    assert take_snapshot(model) is not None
    assert_same(sample(model), sample(model, snapshot=False))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("active", ["default", "other", None])
def test_the_snapshot_has_the_active_adapter(kind, active):
    model = get_peft_model(model_of(kind), LoraConfig(r=4, target_modules="all-linear"))
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    responses = {}
    for name in ("default", "other", None):
        with using_adapter(model, name):
            responses[name] = sample(model, snapshot=False)
    assert len({str([g.ids for g in found]) for found in responses.values()}) == 3
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with using_adapter(model, active):
        assert take_snapshot(model) is not None
        assert_same(sample(model), responses[active])
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_long_prompts_are_read_by_fused_attention(kind, monkeypatch):
    from plumbline.lm.decoding import decoder

    fused = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *a, **k: fused.append(a[0].shape) or real(*a, **k),
    )
    model = model_of(kind)
    expected = sample(model)
    assert not fused
    monkeypatch.setattr(decoder, "_LONGEST_BY_PRODUCTS", 4)
    assert_same(sample(model), expected)
    assert fused


def test_rows_leave_early_and_the_rest_go_on_as_if_alone():
    model = model_of("llama")
    with torch.no_grad():  # ends come often, at many different steps
        model.lm_head.weight[END] += 0.1
    prompts = [[3 + n % 50, 4 + n % 7] for n in range(40)]
    together = sample(model, prompts, temperature=2.0)
    lengths = {len(g.ids) for g in together}
    assert len(lengths) > 5 and {g.finished for g in together} == {True, False}
    assert_same(together, sample(model, prompts, temperature=2.0, batch_size=7))
    assert_same(together, sample(model, prompts, temperature=2.0, snapshot=False))


def test_a_prompt_that_is_asked_several_times_is_read_once(monkeypatch):
    from plumbline.lm.decoding import decoder

    read = []
    prefill = decoder.Decoder._prefill
    monkeypatch.setattr(
        decoder.Decoder, "_prefill", lambda self, *a: read.append(len(a[0])) or prefill(self, *a)
    )
    model = model_of("qwen3")
    prompts = [[5, 6, 8]] * 4 + [[9]] * 3 + [[5, 6, 8]]
    together = sample(model, prompts)
    assert read == [2]
    assert_same(together, sample(model, prompts, snapshot=False))
    assert len({tuple(g.ids) for g in together}) == len(prompts)


def test_decoding_keeps_its_number_format_inside_autocast():
    model = model_of("llama")
    expected = sample(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(sample(model), expected)


def test_a_model_of_another_kind_is_sampled_from_as_it_is():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_positions=64, n_embd=32, n_layer=1, n_head=2)
    ).eval()
    assert take_snapshot(model) is None
    assert len(sample(model, [[5], [6, 7, 8]], max_new_tokens=5)) == 2


def test_unknown_parts_have_no_snapshot():
    model = model_of("llama")
    model.model.layers[1].mlp.down_proj = torch.nn.Sequential(model.model.layers[1].mlp.down_proj)
    assert take_snapshot(model) is None
    dora = get_peft_model(
        model_of("llama"), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True)
    )
    assert take_snapshot(dora) is None


def test_a_window_that_the_text_outgrows_is_left_to_the_model():
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES | {"sliding_window": 8})).eval()
    assert take_snapshot(model).window == 8
    assert_same(sample(model), sample(model, snapshot=False))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_values_are_of_the_state_before_each_token(kind):
    if kind == "llama":
        model = model_of("llama")
    else:
        torch.manual_seed(0)
        sizes = {"n_positions": 96, "n_embd": 48, "n_layer": 2, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=V, **sizes)).eval()
    head = torch.nn.Linear(48, 1)

    def value_head(states):
        return head(states).squeeze(-1)

    for snapshot in (True, False):
        found = sample(model, value_head=value_head, snapshot=snapshot)
        for prompt, generation in zip(PROMPTS, found, strict=True):
            ids = torch.tensor([[*prompt, *generation.ids]])
            with torch.no_grad():
                states = model.base_model(ids).last_hidden_state[0, len(prompt) - 1 : -1]
                expected = value_head(states).tolist()
            assert generation.values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_matrix_says_what_a_plain_one_says(packed, dtype, bias, monkeypatch):
    monkeypatch.setattr(products, "packs", lambda *_: packed)
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    matrix, offset = random(33, 20), random(33) if bias else None
    linear = products.Linear(matrix, offset)
    for rows in (1, 5, 64, 300):
        x, total = random(rows, 20), random(rows, 33)
        exact = torch.nn.functional.linear(
            x.double(), matrix.double(), None if offset is None else offset.double()
        )
        # Of sums of 20 products near 1, one rounding of the result and one of what it is added to.
        close = {"atol": 40 * torch.finfo(dtype).eps, "rtol": 0.0}
        torch.testing.assert_close(linear.of(x).double(), exact, **close)
        torch.testing.assert_close(linear.added(total, x).double(), exact + total, **close)


def test_where_packing_is_not_exact_or_not_there_matrices_stay_plain(monkeypatch):
    model = model_of("qwen2")
    expected = sample(model)
    product = products._packed_product

    def coarse(x, packed, bias):
        return product(x.bfloat16().float(), packed, bias)

    def gone(*_):
        raise AttributeError("no such operator")

    try:
        for broken in (coarse, gone):
            products.packs.cache_clear()
            monkeypatch.setattr(products, "_packed_product", broken)
            assert not products.packs("cpu", torch.float32)
            assert_same(sample(model), expected)
    finally:
        products.packs.cache_clear()


def test_bfloat16_stays_within_its_rounding():
    model = model_of("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3)  # as flat as trained models are
    errors = []
    for prompt, generation in zip(PROMPTS, sample(model, precision="bfloat16"), strict=True):
        ids = torch.tensor([[*prompt, *generation.ids]])
        with torch.no_grad():
            logprobs = (model(ids).logits[0] / 0.7).log_softmax(-1)[len(prompt) - 1 : -1]
        exact = logprobs[range(len(generation.ids)), generation.ids]
        errors.append((exact - torch.tensor(generation.logprobs)).abs())
    errors = torch.cat(errors)
    assert errors.mean() < 0.02 and errors.max() < 0.1
    assert errors.max() > 1e-5  # it is another number format, after all


@pytest.mark.parametrize("size", [4, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.6}])
def test_tokens_are_those_of_one_cumulative_sum(size, filters):
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn(500, size, generator=generator) * 2
    uniforms = torch.rand(500, generator=generator, dtype=torch.float64)
    tokens, logprobs = sample_tokens(logits, uniforms, SamplingConfig(**filters))
    for row in range(500):
        shares = torch.softmax(logits[row].double(), -1)
        ordered, index = shares.sort(descending=True)
        allowed = size
        if "top_k" in filters:
            allowed = 3
        if "top_p" in filters:
            allowed = int((ordered.cumsum(0) - ordered < 0.6).sum())
        kept = torch.zeros_like(shares)
        kept[index[:allowed]] = ordered[:allowed]
        total, target = 0.0, float(uniforms[row] * kept.sum())
        for token in range(size):
            total += float(kept[token])
            if total > target:
                break
        near = abs(total - target) < 1e-6 or abs(total - float(kept[token]) - target) < 1e-6
        assert tokens[row] == token or near
        assert kept[tokens[row]] > 0
        assert logprobs[row] == pytest.approx(float(shares[tokens[row]].log()), abs=1e-5)


def test_extreme_uniforms_never_draw_what_has_no_probability():
    logits = torch.full((4, 300), float("-inf"))
    logits[:, [70, 140, 141]] = torch.tensor([0.0, 1e-3, -20.0])
    uniforms = torch.tensor([0.0, 1e-300, 1 - 2**-53, 0.5], dtype=torch.float64)
    tokens, logprobs = sample_tokens(logits, uniforms, SamplingConfig())
    assert set(tokens.tolist()) <= {70, 140, 141}
    assert tokens[0] == 70 and tokens[1] == 70
    assert torch.isfinite(logprobs).all()
