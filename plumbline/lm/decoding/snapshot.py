"""A decoder's weights, laid out for decoding.

A snapshot holds plain matrices: the active adapter merged in, queries, keys and values as one
matrix, gate and up as one, the scale of the attention scores in the queries. It is taken before
each batch of responses is sampled, since the weights may have moved, and costs one copy of them.

The weights are read, never changed. A model whose parts are not exactly those of a known decoder
has no snapshot, and is sampled from as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.lm.decoding.products import Linear
from plumbline.lm.virtual_tokens import virtual_tokens

#: What each kind of decoder has in a layer; anything more or less is another kind.
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_LAYER = frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
_MLP = frozenset({"gate_proj", "up_proj", "down_proj", "act_fn"})
_KINDS = {
    "llama": ("Llama", _ATTENTION),
    "mistral": ("Mistral", _ATTENTION),
    "qwen2": ("Qwen2", _ATTENTION),
    "qwen3": ("Qwen3", _ATTENTION | {"q_norm", "k_norm"}),
}
#: What a model may have on its decoder: the head of a language model, or that of a reward model.
_HEADS = {"ForCausalLM": "lm_head", "ForSequenceClassification": "score"}
#: Rotary embeddings whose frequencies do not depend on the length of the text.
_STEADY_ROPE = frozenset({"default", "linear", "llama3"})


@dataclass(frozen=True)
class LayerWeights:
    """One layer. ``D`` width, ``Q`` query heads, ``G`` key heads, ``E`` head size, ``F`` inner."""

    qkv: Linear
    """From D to (Q + 2 G) E, with the scale of the norm before it and of the attention scores."""
    head_norms: Tensor | None
    """[Q + G, E] scale of the norms of queries and keys; the queries' has the scores' scale."""
    out: Linear
    """From Q E to D."""
    gate_up: Linear
    """From D to 2 F, with the scale of the norm before it."""
    down: Linear
    """From F to D."""

    def tensors(self) -> list[Tensor]:
        """Return all that it holds."""
        linear = [self.qkv, self.out, self.gate_up, self.down]
        norms = [] if self.head_norms is None else [self.head_norms]
        return norms + [tensor for layer in linear for tensor in layer.tensors()]


@dataclass(frozen=True)
class Snapshot:
    """A decoder's weights in one number format."""

    embedding: Tensor
    """[V, D]."""
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    """[D] scale of the last norm."""
    head: Linear
    """From D to V."""
    epsilon: float
    head_epsilon: float
    query_heads: int
    key_heads: int
    head_size: int
    activation: Any
    rotary: Any
    """The model's own rotary embedding."""
    window: int | None
    """Tokens that a layer with a sliding window sees; None where no layer has one."""

    @property
    def dtype(self) -> torch.dtype:
        """The number format."""
        return self.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    def rotation(self, length: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [length, E]; the sines signed for halves that are swapped."""
        positions = torch.arange(length, device=self.device).unsqueeze(0)
        cos, sin = self.rotary(torch.zeros(1, device=self.device), positions)
        sign = torch.ones(self.head_size, device=self.device)
        sign[: self.head_size // 2] = -1
        return cos[0].to(self.dtype), (sin[0] * sign).to(self.dtype)


@torch.no_grad()
def take_snapshot(
    model: Any, dtype: torch.dtype | None = None, *, packed: bool = True
) -> Snapshot | None:
    """Return a decoder's weights, in its own number format or in ``dtype``.

    ``packed``: see `plumbline.lm.decoding.products.Linear`.

    None where the model is of no kind that we know, its weights are quantised, its adapter does
    more than add two low-rank matrices, or virtual tokens stand before its texts.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not is_known(whole) or not hasattr(whole, "lm_head") or virtual_tokens(model):
        return None
    config, decoder = whole.config, whole.model
    dtype = dtype or decoder.embed_tokens.weight.dtype
    try:
        layers = tuple(layer_weights(layer, dtype, packed=packed) for layer in decoder.layers)
        head = head_weights(whole, dtype, packed=packed)
        embedding = _plain_embedding(decoder.embed_tokens).to(dtype)
    except UnknownLayerError:
        return None
    attention = decoder.layers[0].self_attn
    # Mistral's window is that of every layer, and stands in its config only.
    holders = [config] if config.model_type == "mistral" else [x.self_attn for x in decoder.layers]
    windows = [getattr(holder, "sliding_window", None) for holder in holders]
    return Snapshot(
        embedding=embedding,
        layers=layers,
        norm=decoder.norm.weight.detach().to(dtype),
        head=head,
        epsilon=decoder.norm.variance_epsilon,
        head_epsilon=getattr(
            getattr(attention, "q_norm", decoder.norm), "variance_epsilon", config.rms_norm_eps
        ),
        query_heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_size=attention.head_dim,
        activation=decoder.layers[0].mlp.act_fn,
        rotary=decoder.rotary_emb,
        window=min((window for window in windows if window is not None), default=None),
    )


class UnknownLayerError(Exception):
    """Some layer does more than we know of."""


def is_known(model: Any) -> bool:
    """Return whether a model is built of the parts that we know, and of nothing else."""
    config = getattr(model, "config", None)
    kind = _KINDS.get(getattr(config, "model_type", ""))
    if kind is None:
        return False
    name = type(model).__name__
    head = _HEADS.get(name.removeprefix(kind[0])) if name.startswith(kind[0]) else None
    if set(dict(model.named_children())) != {"model", head}:
        return False
    if set(dict(model.model.named_children())) != {"embed_tokens", "layers", "norm", "rotary_emb"}:
        return False
    if getattr(model.model.rotary_emb, "rope_type", None) not in _STEADY_ROPE:
        return False
    norms = {type(model.model.norm)}
    for layer in model.model.layers:
        parts = dict(layer.named_children())
        if parts.keys() != _LAYER or dict(layer.mlp.named_children()).keys() != _MLP:
            return False
        if dict(layer.self_attn.named_children()).keys() != kind[1]:
            return False
        norms |= {type(layer.input_layernorm), type(layer.post_attention_layernorm)}
    return len({parameter.device for parameter in model.parameters()}) == 1 and len(norms) == 1


def head_weights(model: Any, dtype: torch.dtype, *, packed: bool = True) -> Linear:
    """Return the weights of a language model's head."""
    return _fused([model.lm_head], dtype, packed=packed)


def layer_weights(layer: Any, dtype: torch.dtype, *, packed: bool = True) -> LayerWeights:
    """Return one layer's weights; raise `UnknownLayerError` if it does more than we know of."""
    attention, mlp = layer.self_attn, layer.mlp
    scale = float(attention.scaling)
    norms = None
    if hasattr(attention, "q_norm"):
        queries = attention.q_norm.weight.float() * scale
        keys = attention.k_norm.weight.float()
        heads = attention.q_proj.out_features // attention.head_dim
        groups = attention.k_proj.out_features // attention.head_dim
        norms = torch.cat([queries.expand(heads, -1), keys.expand(groups, -1)]).to(dtype)
        scale = 1.0
    return LayerWeights(
        qkv=_fused(
            [attention.q_proj, attention.k_proj, attention.v_proj],
            dtype,
            norm=layer.input_layernorm.weight,
            scales=(scale, 1.0, 1.0),
            packed=packed,
        ),
        head_norms=norms,
        out=_fused([attention.o_proj], dtype, packed=packed),
        gate_up=_fused(
            [mlp.gate_proj, mlp.up_proj],
            dtype,
            norm=layer.post_attention_layernorm.weight,
            packed=packed,
        ),
        down=_fused([mlp.down_proj], dtype, packed=packed),
    )


def _fused(
    layers: list[Any],
    dtype: torch.dtype,
    *,
    norm: Tensor | None = None,
    scales: tuple[float, ...] = (1.0, 1.0),
    packed: bool = True,
) -> Linear:
    """Return linear layers side by side as one.

    ``norm`` [in] scales what the layers read, ``scales`` what each of them says.
    """
    weights, biases = [], []
    for layer, scale in zip(layers, scales, strict=False):
        weight, bias = plain_weights(layer)
        if norm is not None:
            weight = weight.float() * (norm.float() * scale)
        weights.append(weight)
        biases.append(None if bias is None else bias.float() * scale)
    matrix = torch.cat([weight.to(dtype) for weight in weights])
    if all(bias is None for bias in biases):
        return Linear(matrix, None, packed=packed)
    full = [
        torch.zeros(weight.shape[0], device=weight.device) if bias is None else bias
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return Linear(matrix, torch.cat(full).to(dtype), packed=packed)


def plain_weights(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return the weight and bias of a linear layer, with what its active adapters add."""
    if type(layer) is nn.Linear:
        return layer.weight, layer.bias
    from peft.tuners.lora.layer import Linear as LoraLinear

    if type(layer) is not LoraLinear or type(layer.base_layer) is not nn.Linear:
        raise UnknownLayerError
    base = layer.base_layer
    weight = base.weight
    if layer.disable_adapters or layer.merged:
        return weight, base.bias
    for adapter in layer.active_adapters:
        if adapter not in layer.lora_A:
            continue
        if layer.lora_variant.get(adapter) is not None or layer.lora_B[adapter].bias is not None:
            raise UnknownLayerError
        weight = weight.float() + layer.get_delta_weight(adapter).float()
    return weight, base.bias


def _plain_embedding(layer: Any) -> Tensor:
    if type(layer) is not nn.Embedding or layer.max_norm is not None:
        raise UnknownLayerError
    return layer.weight
