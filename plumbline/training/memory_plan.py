"""How much memory a training takes, and how long it takes, from the shape of the model alone.

Nothing is loaded. Sizes are bytes, of one process unless it says otherwise. What a pass keeps for
its backward pass was counted with torch's own hooks for saved tensors, for the passes of this
suite; docs/scale.md compares whole estimates with measured peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from plumbline.runs.shardings import Sharding
from plumbline.tables import Table

GIB = 1 << 30
#: Kinds of decoders whose parameters and passes are known here, as ``model_type`` names them.
KINDS = ("llama", "mistral", "qwen2", "qwen3")
#: Bytes of a weight in NF4: 4 bits, 8 bits of scale for 64 weights, and 32 for 256 scales.
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


_SIZES = (
    "num_attention_heads", "hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder of the kind of Llama, Mistral, Qwen2 and Qwen3."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool = False
    """Whether head and embedding are one matrix."""
    query_norms: bool = False
    """Whether queries and keys are normed, as in Qwen3."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """Return the shape that a ``config.json`` describes.

        Raises `ValueError` for another kind of model, or one whose sizes are none.
        """
        kind = config.get("model_type")
        if kind not in KINDS:
            raise ValueError(f"its model_type is {kind!r}, which is none of {', '.join(KINDS)}")
        for name in _SIZES:
            if not isinstance(config.get(name), int) or config[name] < 1:
                raise ValueError(f"its {name} is {config.get(name)!r}")
        heads = int(config["num_attention_heads"])
        width = int(config["hidden_size"])
        return cls(
            width=width,
            inner=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or width // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            query_norms=kind == "qwen3",
        )

    @property
    def queries(self) -> int:
        """Numbers in the queries of a token."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Numbers in the keys of a token; as many in its values."""
        return self.kv_heads * self.head_size

    @property
    def in_layers(self) -> int:
        """Parameters of the matrices of all layers."""
        attention = 2 * self.width * (self.queries + self.keys)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """All parameters."""
        norms = self.layers * (2 * self.width + (2 * self.head_size if self.query_norms else 0))
        return self.in_layers + self.embeddings + norms + self.width

    @property
    def embeddings(self) -> int:
        """Parameters of embedding and head."""
        return self.vocabulary * self.width * (1 if self.tied else 2)

    @property
    def quantized(self) -> float:
        """Bytes of a weight on average, where the matrices of the layers are in NF4."""
        rest = self.parameters - self.in_layers
        return (NF4 * self.in_layers + 2 * rest) / self.parameters

    def of_adapter(self, rank: int) -> int:
        """Return the parameters of an adapter on every linear layer."""
        width, inner = self.width, self.inner
        sides = 2 * (width + self.queries) + 2 * (width + self.keys) + 3 * (width + inner)
        return self.layers * rank * sides

    def cache_of_token(self, size: int) -> int:
        """Return the bytes of a token's keys and values in numbers of ``size`` bytes."""
        return 2 * self.layers * self.keys * size


@dataclass(frozen=True)
class Training:
    """What one training holds, in each process."""

    shape: Shape
    rank: int | None
    """Rank of the adapters that are trained; None where all weights are."""
    tokens: int
    """Tokens in one forward and backward pass, in each process."""
    trained: int = 1
    """Models, or adapters on one base, that are trained: PPO has two with a value model."""
    frozen: int = 0
    """Whole models beside them that are not trained, such as a reference with full tuning."""
    held: float = 2
    """Bytes of a frozen weight, on average. A weight that is trained has 4."""
    computed: int = 2
    """Bytes of a number in a pass."""
    moments: int = 8
    """Bytes of an optimiser's moments for each weight that is trained."""
    keeps: float = 1.0
    """What a pass keeps for its backward pass, over what transformers' own pass keeps."""
    checkpointing: bool = False
    """Whether activations are computed again."""
    logits: int = 0
    """Tokens whose logits are held at once, in float32."""
    sampled: tuple[int, int] = (0, 0)
    """Rows that are sampled at once, and tokens of each, prompt included."""

    @property
    def trained_parameters(self) -> int:
        """Parameters that are trained."""
        if self.rank is None:
            return self.trained * self.shape.parameters
        return self.trained * self.shape.of_adapter(self.rank)


class Memory(NamedTuple):
    """The memory of one process by what it is for, in bytes."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    cache: int
    """Keys and values of responses that are sampled, and the weights laid out for it."""

    @property
    def total(self) -> int:
        """All of it at once. Sampling and passes do not overlap, so only the larger counts."""
        held = self.parameters + self.optimizer
        return held + max(self.gradients + self.activations, self.cache)


def memory_of(training: Training, sharding: Sharding, processes: int = 1) -> Memory:
    """Return the memory of each process.

    ``sharding`` with one process shards nothing. Where the weights are in shares, a pass gathers
    two layers at a time, and what is outside of them; sampling gathers all.
    """
    shape = training.shape

    def share(size: int, sharded: bool) -> int:
        return -(-size // processes) if sharded else size

    trained = training.trained_parameters
    whole = training.frozen + (0 if training.rank is None else 1)
    weights = 4 * trained + int(training.held * whole * shape.parameters)
    kept = training.moments + (4 if sharding.steps_a_copy and processes > 1 else 0)
    rows, length = training.sampled
    shares = sharding.weights and processes > 1
    gathered = shape.in_layers * 2 // shape.layers + shape.embeddings if shares else 0
    copies = 2 if shares else 1  # of the weights while sampling: gathered, and laid out
    laid_out = copies * training.computed * shape.parameters if rows else 0
    return Memory(
        parameters=share(weights, sharding.weights),
        gradients=share(4 * trained, sharding.gradients),
        optimizer=share(kept * trained, sharding.optimizer),
        activations=activations_of(training) + training.computed * gathered,
        cache=laid_out + rows * length * shape.cache_of_token(training.computed),
    )


def activations_of(training: Training) -> int:
    """Return what a pass keeps for its backward pass, and the logits that it holds.

    In a layer, for each token: the residual stream and what is normed (6 widths), queries, keys,
    values and what attention mixes (twice), and the four numbers of each place of the feed-forward
    block. With checkpointing each layer keeps its input, and one layer all of this.
    """
    shape = training.shape
    attention = 2 * (shape.queries + shape.keys)
    of_layer = 4 * shape.inner + 6 * shape.width + attention * (2 if shape.query_norms else 1)
    if training.checkpointing:
        numbers = shape.layers * shape.width + training.keeps * of_layer
    else:
        numbers = training.keeps * shape.layers * of_layer
    # Logits, their softmax and the gradient of both.
    return int(training.tokens * numbers * training.computed) + (
        3 * 4 * training.logits * shape.vocabulary
    )


def operations_of_token(training: Training) -> float:
    """Return the operations of one token's forward and backward pass through a trained model.

    2 for each parameter forward, as many for the gradient of the activations and, where all weights
    are trained, for that of the weights (Kaplan et al., 2020, section 2.1).
    """
    passes = 3 if training.rank is None else 2
    passes += 1 if training.checkpointing else 0
    return 2.0 * passes * training.shape.parameters


class Card(NamedTuple):
    """A GPU: what its maker states."""

    name: str
    memory: int
    """Bytes."""
    peak: float
    """Operations per second in bfloat16, dense."""
    bandwidth: float
    """Bytes per second from its memory."""


#: Shapes by name: those of Qwen2.5 0.5B, Llama 3.2 1B, Llama 3.1 8B and 70B.
MODELS = {
    "0.5b": Shape(896, 4864, 24, 14, 2, 64, 151_936, tied=True),
    "1b": Shape(2048, 8192, 16, 32, 8, 64, 128_256, tied=True),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128, 128_256),
    "70b": Shape(8192, 28_672, 80, 64, 8, 128, 128_256),
}

CARDS = Table(
    "GPU",
    (
        Card("a100-40", 40 * GIB, 312e12, 1.555e12),
        Card("a100-80", 80 * GIB, 312e12, 2.039e12),
        Card("h100", 80 * GIB, 989e12, 3.35e12),
        Card("h200", 141 * 10**9, 989e12, 4.8e12),
        Card("l40s", 48 * GIB, 362e12, 0.864e12),
        Card("rtx4090", 24 * GIB, 165e12, 1.008e12),
    ),
)

#: Share of the stated peak that learning reaches: 37 % were measured (docs/gpu.md, 0.5B on an H200:
#: 48 % of a matrix peak that was itself 79 % of the stated one).
SHARE_OF_PEAK = 0.37
#: Share of the stated bandwidth that decoding reaches: measured with 1.5B and 64 rows on an H200.
SHARE_OF_BANDWIDTH = 0.23


def learning_seconds(training: Training, tokens: float, card: Card, processes: int) -> float:
    """Return how long it takes to learn from tokens, without communication between GPUs."""
    operations = tokens * operations_of_token(training)
    return operations / (card.peak * SHARE_OF_PEAK * processes)


def reading_seconds(training: Training, tokens: float, card: Card, processes: int) -> float:
    """Return how long it takes to read tokens without learning from them, as a reference does."""
    operations = 2.0 * tokens * training.shape.parameters
    return operations / (card.peak * SHARE_OF_PEAK * processes)


def sampling_seconds(training: Training, responses: float, card: Card, processes: int) -> float:
    """Return how long responses take: each step reads all weights and the rows' caches once."""
    rows, length = training.sampled
    if not rows:
        return 0.0
    shape = training.shape
    read = training.computed * shape.parameters
    read += rows * length * shape.cache_of_token(training.computed) // 2  # half full on average
    steps = responses / rows / processes * length
    return steps * read / (card.bandwidth * SHARE_OF_BANDWIDTH)
