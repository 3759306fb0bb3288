"""Frozen weights in 4 bits (NF4, by bitsandbytes), in a form that can be trained on."""

from __future__ import annotations

from typing import Any

import torch

from plumbline.errors import ModelError

#: A product with 4-bit weights may differ from one with plain weights by this share (rounding).
_ERROR = 1e-2


def nf4_config(dtype: Any) -> Any:
    """Return transformers' config for a base in NF4 with double quantisation."""
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "method: qlora needs bitsandbytes, which is not installed: "
            "pip install 'plumbline-rlhf[qlora]', or set method: lora."
        )
    compute = torch.float32 if dtype in ("auto", torch.float32) else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def keep_unpacked(model: Any) -> None:
    """Keep 4-bit layers in the layout that training reads.

    On processors with AVX512-BF16, bitsandbytes changes the layout of the weights in the first
    pass that evaluates, for a faster kernel in bfloat16. That kernel has no backward pass and the
    layout stays: every gradient after an evaluation would be wrong, without a message.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def training_problem(device: str) -> str | None:
    """Return what is wrong with training on 4-bit weights here; None where it works.

    Does what a stage does: an evaluation, then a training pass, both against plain weights.
    """
    try:
        from bitsandbytes.functional import dequantize_4bit
        from bitsandbytes.nn import Linear4bit
    except Exception as error:  # bitsandbytes fails in many ways where it does not fit
        return f"bitsandbytes cannot be used: {error}"
    try:
        generator = torch.Generator().manual_seed(0)
        layer = Linear4bit(128, 96, compute_dtype=torch.float32, quant_type="nf4").to(device)
        keep_unpacked(layer)
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        x = torch.randn(8, 128, generator=generator).to(device)
        expected = torch.nn.functional.linear(x, weight, layer.bias)
        layer.eval()
        with torch.no_grad():
            evaluated = layer(x)
        layer.train()
        x.requires_grad_()
        trained = layer(x)
        trained.sum().backward()
    except Exception as error:
        return f"training on 4-bit weights fails: {error}"
    for name, value, target in (
        ("an evaluation", evaluated, expected.detach()),
        ("a training pass", trained.detach(), expected.detach()),
        ("the gradient after an evaluation", x.grad, weight.sum(0).expand_as(x)),
    ):
        assert value is not None
        error_share = float((value - target).norm() / target.norm())
        if error_share > _ERROR:
            return f"{name} on 4-bit weights is off by {error_share:.1%}"
    return None
