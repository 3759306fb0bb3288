"""A prompt that is read once for its responses gives what it gives when read once for each."""

from __future__ import annotations

import random

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

from plumbline.lm import branches as module
from plumbline.lm.batches import collate
from plumbline.lm.branches import Branches, branch_logprobs
from plumbline.lm.gpu.branch_checks import has_branch_pass
from plumbline.lm.gpu.packing import pack_branches, side_by_side
from plumbline.lm.gpu.passes import packed_logprobs
from plumbline.lm.gpu.status import forget

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
    "no groups": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 4}),
    "window": (MistralForCausalLM, MistralConfig, {"sliding_window": 7}),
    "windows in some layers": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}


def model_of(kind, *, lora=False):
    torch.manual_seed(0)
    cls, config, more = KINDS[kind]
    model = cls(config(**SIZES | more))
    if not lora:
        return model
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def random_branches(seed, rows=3, longest=19):
    """Prompts with one to three responses, one token long at least."""
    draw = random.Random(seed)

    def ids(most):
        return [draw.randrange(120) for _ in range(draw.randint(1, most))]

    return Branches(
        [ids(longest) for _ in range(rows)],
        [[ids(9) for _ in range(draw.randint(1, 3))] for _ in range(rows)],
    )


def own_logprobs(model, branches):
    """Each response behind its own prompt, by transformers' own pass and log-softmax, [B, R]."""
    prompts = [p for p, s in zip(branches.prompts, branches.responses, strict=True) for _ in s]
    batch = collate(prompts, branches.flat, 0)
    logits = model(
        input_ids=batch.ids, attention_mask=batch.attention_mask,
        position_ids=batch.position_ids, use_cache=False,
    ).logits  # fmt: skip
    width = batch.response_mask.shape[1]
    logprobs = torch.log_softmax(logits[:, -width - 1 : -1], dim=-1)
    found = logprobs.gather(2, batch.response_ids.unsqueeze(2)).squeeze(2)
    return found.masked_fill(~batch.response_mask, 0.0)


def gradients(model, logprobs):
    """Of a sum in which every token counts differently."""
    weights = torch.linspace(-1, 1, logprobs.numel()).sin().view(logprobs.shape)
    model.zero_grad()
    (logprobs * weights).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def by_packed_pass(model, branches):
    packing = pack_branches(*branches)
    return packing.unpack(packed_logprobs(model, packing, module.ACTIVE).logprobs)


WAYS = {
    "fused": lambda model, branches: branch_logprobs(model, branches).logprobs,
    "packed": by_packed_pass,
}


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_log_probabilities_and_gradients_are_those_of_the_plain_computation(kind, lora, way):
    model = model_of(kind, lora=lora)
    for seed in range(3):
        branches = random_branches(seed)
        found, expected = WAYS[way](model, branches), own_logprobs(model, branches)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        ours, theirs = gradients(model, found), gradients(model, expected)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["llama", "window"])
def test_long_texts_take_another_way_and_say_the_same(kind, monkeypatch):
    model, branches = model_of(kind), random_branches(0)
    expected = branch_logprobs(model, branches).logprobs
    monkeypatch.setattr(module, "LONGEST_BY_PRODUCTS", 4)
    found = branch_logprobs(model, branches).logprobs
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(model, found), gradients(model, expected)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


def test_the_fused_way_is_the_one_that_is_taken(monkeypatch):
    monkeypatch.setattr(module, "response_logprobs", None)
    branch_logprobs(model_of("llama"), random_branches(0))


def test_a_response_sees_nothing_of_the_others():
    model = model_of("llama")
    prompt, first = [3, 4, 5, 6], [7, 8, 9]
    one, other = (
        branch_logprobs(model, Branches([prompt], [[first, second]])).logprobs[0, :3]
        for second in ([10, 11], [12, 13, 14, 15])
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_entropies_are_those_of_the_distributions():
    model, branches = model_of("llama"), Branches([[3, 4]], [[[5]]])
    logits = model(torch.tensor([[3, 4]])).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(branch_logprobs(model, branches).entropy[0, 0], expected)


def test_models_that_are_not_known_read_each_response_behind_its_own_prompt():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=120, n_embd=48, n_layer=2, n_head=4, n_positions=64, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model, branches = GPT2LMHeadModel(config), random_branches(0)
    found = branch_logprobs(model, branches).logprobs
    torch.testing.assert_close(found, own_logprobs(model, branches), rtol=1e-4, atol=1e-4)


def test_bfloat16_is_close():
    model, branches = model_of("llama"), random_branches(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = branch_logprobs(model, branches).logprobs
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, own_logprobs(model, branches), rtol=0.1, atol=0.3)


def test_a_prompt_or_response_without_tokens_is_refused():
    for prompts, responses in (([[]], [[[1]]]), ([[1]], [[[]]])):
        with pytest.raises(ValueError, match="at least one token"):
            pack_branches(prompts, responses)
    with pytest.raises(ValueError, match="one role"):
        side_by_side(pack_branches([[1]], [[[2]]]), 2)


@pytest.mark.parametrize("kind", ["llama", "window"])
def test_the_packed_pass_checks_itself_once(kind):
    forget()
    try:
        assert has_branch_pass(model_of(kind), anywhere=True)
    finally:
        forget()


def test_a_packed_pass_that_is_wrong_is_not_taken(monkeypatch):
    from plumbline.lm.gpu import branch_checks

    def too_early(prompts, responses):
        packing = pack_branches(prompts, responses)
        return packing._replace(positions=packing.positions.clamp(max=3))

    forget()
    monkeypatch.setattr(branch_checks, "pack_branches", too_early)
    try:
        assert not has_branch_pass(model_of("llama"), anywhere=True)
    finally:
        forget()
