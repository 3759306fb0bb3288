"""The table of tuning methods: which weights train, and what later stages can do with them.

A method trains a whole model, some of its layers, an adapter on a frozen base, or virtual tokens
before the text. Adapters are PEFT's own, and are saved in its format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from plumbline.errors import ModelError
from plumbline.tables import Table

Weights = Literal["all", "layers", "adapter", "virtual tokens"]
Use = Literal["reward", "preferences", "ppo"]
#: How an error names what a method cannot be used for.
USES: Mapping[Use, str] = {
    "reward": "a reward model",
    "preferences": "training on preferences",
    "ppo": "PPO",
}


class TuningSettings(Protocol):
    """What methods read of `plumbline.lm.tuning.TuningConfig`, which is built on this table."""

    @property
    def rank(self) -> int:
        """Rank of the matrices."""

    @property
    def alpha(self) -> int:
        """Scale of what they add, times the rank."""

    @property
    def dropout(self) -> float:
        """On an adapter's input."""

    @property
    def target_modules(self) -> str | tuple[str, ...]:
        """Layers that get an adapter."""

    @property
    def placement(self) -> str:
        """Where bottlenecks are."""

    @property
    def bottleneck_size(self) -> int:
        """Their width."""

    @property
    def virtual_tokens(self) -> int:
        """How many stand before the text."""

    @property
    def encoder_size(self) -> int:
        """Width of the network that writes them."""


@dataclass(frozen=True)
class TuningMethod:
    """A row of the table."""

    name: str
    weights: Weights
    """Which weights train."""
    peft_config: Callable[[TuningSettings, Any], Any] | None = None
    """PEFT's config of a new adapter, by the settings and the model that it is for."""
    kind: str = ""
    """The kind of adapter, as its files say: what may continue to train it."""
    merges: bool = True
    """Whether the base's weights can hold what was trained."""
    settings: frozenset[str] = frozenset()
    """Settings that it reads; each is refused with a method that does not read it."""
    low_rank: bool = False
    """Whether an adapter adds two low-rank matrices and nothing else, which servers can load."""
    quantizes_base: bool = False
    """Whether the frozen base is held in 4 bits."""
    changes_base: bool = False
    """Whether a new adapter takes a part of the base's weights along."""
    is_cache: bool = False
    """Whether what it trains is a cache of keys and values, which checkpointing drops."""
    can_share: bool = False
    """Whether several processes can hold a share of its weights each."""
    cannot: Mapping[Use, str] = field(default_factory=dict)
    """What it cannot be used for, each with the reason."""

    @property
    def has_adapter(self) -> bool:
        """Whether the base stays as it is, and what was trained is saved beside it."""
        return self.peft_config is not None


def _lora(**more: Any) -> Callable[[TuningSettings, Any], Any]:
    def config(tuning: TuningSettings, model: Any) -> Any:
        from peft import LoraConfig

        modules = tuning.target_modules
        return LoraConfig(
            r=tuning.rank,
            lora_alpha=tuning.alpha,
            lora_dropout=tuning.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            **more,
        )

    return config


def _ia3(tuning: TuningSettings, model: Any) -> Any:
    from peft import IA3Config

    names = _layers_of(model, ("k_proj", "v_proj", "down_proj"), "ia3")
    return IA3Config(target_modules=names, feedforward_modules=[names[-1]])


def _bottleneck(tuning: TuningSettings, model: Any) -> Any:
    from plumbline.lm.bottleneck import BottleneckConfig

    names = ("down_proj",) if tuning.placement == "pfeiffer" else ("o_proj", "down_proj")
    modules = _layers_of(model, names, "bottleneck")
    return BottleneckConfig(size=tuning.bottleneck_size, target_modules=modules)


def _prefix(tuning: TuningSettings, model: Any) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(num_virtual_tokens=tuning.virtual_tokens)


def _prompt(tuning: TuningSettings, model: Any) -> Any:
    from peft import PromptTuningConfig

    # Lester et al. (2021), section 3.2: embeddings of words are a better start than random ones.
    return PromptTuningConfig(
        num_virtual_tokens=tuning.virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
    )


def _p_tuning(tuning: TuningSettings, model: Any) -> Any:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        num_virtual_tokens=tuning.virtual_tokens, encoder_hidden_size=tuning.encoder_size
    )


def _layers_of(model: Any, names: Sequence[str], method: str) -> list[str]:
    """Return names of linear layers, all of which a model must have."""
    have = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [name for name in names if name not in have]
    if missing:
        raise ModelError(
            f"tuning.method is {method}, which trains the layers {', '.join(names)}, and "
            f"{type(model).__name__} has no {', '.join(missing)}. Set tuning.method to lora, which "
            "finds the linear layers of any model."
        )
    return list(names)


_ALL_WEIGHTS = (
    "its roles with weights of their own train all of them, and freezing layers is not part of it"
)
_BY_STEPS = "layers are unfrozen by the steps of supervised fine-tuning alone"
_PART_IN_THE_BASE = (
    "its adapter starts from the largest part of the base's own weights, so the base without the "
    "adapter is not the start that it is compared with"
)
_TOKENS = "virtual tokens stand before the text, which its passes over prompts and responses do not"


def _virtual_tokens(
    name: str,
    peft_config: Callable[[TuningSettings, Any], Any],
    *settings: str,
    is_cache: bool = False,
) -> TuningMethod:
    return TuningMethod(
        name,
        "virtual tokens",
        peft_config,
        name,
        merges=False,
        settings=frozenset({"virtual_tokens", *settings}),
        is_cache=is_cache,
        cannot={"reward": _TOKENS, "preferences": _TOKENS, "ppo": _TOKENS},
    )


_LOW_RANK = frozenset({"rank", "alpha", "dropout", "target_modules"})

TUNING_METHODS: Table[TuningMethod] = Table(
    "tuning method",
    (
        TuningMethod("full", "all", can_share=True),
        TuningMethod(
            "last_layers",
            "layers",
            settings=frozenset({"trained_layers"}),
            cannot={"ppo": _ALL_WEIGHTS},
        ),
        TuningMethod(
            "progressive",
            "layers",
            settings=frozenset({"unfrozen_by"}),
            cannot={"reward": _BY_STEPS, "preferences": _BY_STEPS, "ppo": _ALL_WEIGHTS},
        ),
        TuningMethod(
            "lora", "adapter", _lora(), "lora", settings=_LOW_RANK, low_rank=True, can_share=True
        ),
        TuningMethod(
            "qlora",
            "adapter",
            _lora(),
            "lora",
            settings=_LOW_RANK,
            low_rank=True,
            quantizes_base=True,
        ),
        TuningMethod(
            "rslora",
            "adapter",
            _lora(use_rslora=True),
            "rslora",
            settings=_LOW_RANK,
            low_rank=True,
            can_share=True,
        ),
        TuningMethod("dora", "adapter", _lora(use_dora=True), "dora", settings=_LOW_RANK),
        TuningMethod(
            "pissa",
            "adapter",
            _lora(init_lora_weights="pissa"),
            "pissa",
            settings=_LOW_RANK,
            low_rank=True,
            changes_base=True,
            cannot={
                "reward": _PART_IN_THE_BASE,
                "preferences": _PART_IN_THE_BASE,
                "ppo": _PART_IN_THE_BASE,
            },
        ),
        TuningMethod("ia3", "adapter", _ia3, "ia3"),
        TuningMethod(
            "bottleneck",
            "adapter",
            _bottleneck,
            "bottleneck",
            merges=False,
            settings=frozenset({"bottleneck_size", "placement"}),
        ),
        _virtual_tokens("prefix", _prefix, is_cache=True),
        _virtual_tokens("prompt", _prompt),
        _virtual_tokens("p_tuning", _p_tuning, "encoder_size"),
    ),
)

_KINDS = {
    "PREFIX_TUNING": "prefix",
    "PROMPT_TUNING": "prompt",
    "P_TUNING": "p_tuning",
}


def kind_of_adapter(values: Mapping[str, Any]) -> str:
    """Return the kind of an adapter by the values of its ``adapter_config.json``."""
    peft_type = str(values.get("peft_type"))
    if peft_type == "LORA":
        return (
            "dora" if values.get("use_dora") else "rslora" if values.get("use_rslora") else "lora"
        )
    return _KINDS.get(peft_type, peft_type.lower())
