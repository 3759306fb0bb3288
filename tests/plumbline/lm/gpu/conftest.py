"""Small decoders of each kind that has fast paths, with weights far from uniform."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from plumbline.lm.backbone import backbone
from plumbline.lm.batches import collate

SIZES = {
    "vocab_size": 120,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "llama, biases": (LlamaForCausalLM, LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "llama, gelu": (LlamaForCausalLM, LlamaConfig, {"hidden_act": "gelu"}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 100}),
    "mistral, short window": (MistralForCausalLM, MistralConfig, {"sliding_window": 5}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2, windows in some layers": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen2, tied": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 16}),
}
PROMPTS = [[5, 6, 8], [9], [11, 12, 13, 14, 15, 16, 17], [3, 0, 4]]
RESPONSES = [[21, 22], [31, 32, 33, 34, 35], [41], [51, 0, 53]]


@pytest.fixture
def batch():
    return collate(PROMPTS, RESPONSES, 0)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def make():
    """Return a function from a kind's name to a model."""

    def model_of(kind, seed=0):
        torch.manual_seed(seed)
        cls, config, more = KINDS[kind]
        model = cls(config(**SIZES | more))
        with torch.no_grad():  # new models have biases of 0 and norms of 1, which hide mistakes
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.uniform_(0.5, 1.5)
                elif "bias" in name:
                    parameter.normal_(0, 0.5)
        return model

    return model_of


@pytest.fixture
def with_adapters():
    """Return a function that adds two adapters, ``default`` and ``other``."""

    def adapted(model):
        model = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules="all-linear"))
        other = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "up_proj"])
        model.add_adapter("other", other)
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.2)
                parameter.requires_grad = True
        return model

    return adapted


@pytest.fixture
def own_states():
    """Return a function from a model and a batch to the states [B, R, D] of transformers' pass."""

    def states(model, batch):
        hidden = backbone(model)(
            input_ids=batch.ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        return hidden[:, -batch.response_mask.shape[1] - 1 : -1]

    return states


@pytest.fixture
def gradients():
    """Return a function from a model and states [M, D] to the gradients of its parameters."""

    def of(model, states):
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
        model.zero_grad()
        (states.float() * weights.to(states.device)).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    return of
