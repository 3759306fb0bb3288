"""A trial of every fast path on a small model, for ``plumbline doctor``."""

from __future__ import annotations

from typing import Any

import torch

from plumbline.lm.batches import collate
from plumbline.lm.gpu.checks import has_packed_pass
from plumbline.lm.gpu.packing import pack
from plumbline.lm.gpu.passes import packed_logprobs
from plumbline.lm.gpu.sampling import generate_static, static_decoder
from plumbline.lm.precision import compute_precision


def try_fast_paths(device: str | None = None) -> str:
    """Sample from a small model, and take a step with it; what is found is in ``status``.

    ``device``: the GPU, unless a test says otherwise.
    """
    if device is None:
        if not torch.cuda.is_available():
            return "for a GPU, and there is none"
        device = "cuda"
    model = _small_model(device)
    with compute_precision("auto", device):
        if has_packed_pass(model, anywhere=True):
            batch = collate([[5, 6, 7], [8]], [[9, 10], [11]], 0)
            packed_logprobs(model, pack(batch), None).logprobs.sum().backward()  # type: ignore[no-untyped-call]
    dtype = torch.bfloat16 if device == "cuda" else None
    model.eval()
    decoder = static_decoder(model, rows=4, columns=40, new_tokens=24, dtype=dtype)
    if decoder is not None:
        uniforms = torch.rand(4, 24, dtype=torch.float64)
        prompts = [[1 + row, 2] for row in range(4)]
        generate_static(decoder, prompts, uniforms, (1.0, None, None), frozenset(), None)
    return "tried on a small model"


def _small_model(device: str) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).to(device)
