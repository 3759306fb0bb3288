"""The last hidden states of the decoders we know, from packed tokens.

The same mathematics as transformers' own pass, for training and for scoring on a GPU. Inside
autocast it computes in bfloat16 over the weights as they are held, the residual stream, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from plumbline.lm.adapters import ACTIVE, Role, active_adapter
from plumbline.lm.backbone import backbone
from plumbline.lm.decoding.snapshot import UnknownLayerError, is_known
from plumbline.lm.gpu.attention import Layout, kernel_for
from plumbline.lm.gpu.layers import ACTIVATIONS, Shape, decoder_layer, norm
from plumbline.lm.gpu.packing import Packing, move
from plumbline.lm.gpu.regions import free_rows
from plumbline.lm.gpu.weights import Layer, layer_weights


def packed_states(
    model: Any,
    packing: Packing,
    roles: Sequence[Role] = (ACTIVE,),
    *,
    checkpointing: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return the normalised last hidden states at ``packing.predicts``, [M, D].

    ``roles``: the adapters that are used. Where there are several, the sequences of the packing are
    cut into as many equal runs (`side_by_side`), one for each role in turn. ``checkpointing`` keeps
    no more than each layer's input for the backward pass. ``dtype`` is the number format of the
    pass, instead of autocast's.

    Raises `UnknownLayerError` where a part of the model is not one that we know.
    """
    roles = tuple(active_adapter(model) if role == ACTIVE else role for role in roles)
    trunk = backbone(model)
    dtype = dtype or compute_dtype(trunk)
    layers = [layer_weights(layer, roles) for layer in trunk.layers]
    shapes = [
        _shape(trunk, layer, weights, dtype)
        for layer, weights in zip(trunk.layers, layers, strict=True)
    ]
    device = trunk.embed_tokens.weight.device
    token_roles = _token_roles(packing, len(roles))
    token_roles = None if token_roles is None else move(token_roles, device)
    packing = packing.to(device)
    with torch.autocast(device.type, enabled=False):
        x = _embed(trunk.embed_tokens, packing.ids).to(dtype)
        cos, sin = _rotation(trunk, packing.positions, dtype)
        layout = Layout.of(packing)
        free_rows(cos, sin, token_roles)
        if _learns(layers[0]) and not x.requires_grad:
            # Or the first layer, whose input has no gradient under adapters, is compiled apart.
            x.requires_grad_()
        for weights, shape in zip(layers, shapes, strict=True):
            free_rows(x)
            arguments = (x, cos, sin, token_roles, layout, weights, shape)
            if checkpointing and torch.is_grad_enabled():
                # An early stop is an exception, which a region would take for a failed compilation.
                with set_checkpoint_early_stop(False):
                    x = checkpoint(decoder_layer, *arguments, use_reentrant=False)
            else:
                x = decoder_layer(*arguments)
        return norm(x[packing.predicts], trunk.norm.weight, trunk.norm.variance_epsilon)


def unknown_part(model: Any) -> str | None:
    """Return why a model has no packed pass, or None where it has one."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not is_known(whole):
        return f"{type(whole).__name__} is not one of the decoders that we know"
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return "virtual tokens stand before its texts"
    if any(type(p) is not nn.Parameter or not p.numel() for p in model.parameters()):
        return "its weights are quantised, or spread over processes"
    if type(whole.model.embed_tokens) is not nn.Embedding:
        return "the embedding has an adapter"
    if whole.config.hidden_act not in ACTIVATIONS:
        return f"its activation {whole.config.hidden_act} is not one that we know"
    if model.training and getattr(whole.config, "attention_dropout", 0.0):
        return "it drops attention in training"
    names = list(model.peft_config) if hasattr(model, "peft_config") else []
    try:
        for layer in whole.model.layers:
            layer_weights(layer, names)
    except UnknownLayerError:
        return "a layer has more than a plain weight with low-rank adapters"
    return None


def compute_dtype(trunk: Any) -> torch.dtype:
    """Return the number format of a pass: that of autocast, or of the weights."""
    weight: Tensor = trunk.embed_tokens.weight
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _learns(layer: Layer) -> bool:
    """Return whether a weight of a layer gets a gradient."""
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_iter(layer))


def _embed(embedding: Any, ids: Tensor) -> Tensor:
    return F.embedding(ids, embedding.weight, embedding.padding_idx)


def _rotation(trunk: Any, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosines and sines [N, 1, E]; the sines signed for halves that are swapped."""
    like = torch.zeros(1, dtype=torch.float32, device=positions.device)
    cos, sin = trunk.rotary_emb(like, positions.unsqueeze(0))
    half = cos.shape[-1] // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return cos[0].unsqueeze(1).to(dtype), sin[0].unsqueeze(1).to(dtype)


def _shape(trunk: Any, layer: Any, weights: Layer, dtype: torch.dtype) -> Shape:
    attention = layer.self_attn
    # Mistral's window is that of every layer, and stands in its config only.
    holder = trunk.config if trunk.config.model_type == "mistral" else attention
    size = int(attention.head_dim)
    q, k, _ = weights.qkv
    heads, groups = len(q.weight) // size, len(k.weight) // size
    return Shape(
        size,
        float(attention.scaling),
        float(layer.input_layernorm.variance_epsilon),
        getattr(holder, "sliding_window", None),
        trunk.config.hidden_act,
        kernel_for(q.weight.device, dtype, heads, groups, size),
    )


def _token_roles(packing: Packing, roles: int) -> Tensor | None:
    """Return the number of each token's role, [N]; padding has the last one."""
    if roles == 1:
        return None
    sequences = packing.sequences - 1
    lengths = packing.offsets.diff()
    of_sequence = torch.arange(sequences) // (sequences // roles)
    of_sequence = torch.cat([of_sequence, of_sequence.new_tensor([roles - 1])])
    return of_sequence.repeat_interleave(lengths.cpu())
