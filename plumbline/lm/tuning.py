"""Which weights are trained: all of them, some layers, or an adapter on a frozen base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from plumbline.config import Check, Config, only_when
from plumbline.errors import ModelError
from plumbline.lm.sharding import size_of
from plumbline.lm.tuning_methods import TUNING_METHODS, USES, TuningMethod, Use


def _read_by(name: str) -> tuple[Callable[[TuningConfig], bool], str]:
    """Return whether the method reads a setting, and how an error names the methods that do."""
    methods = TUNING_METHODS.where(lambda row: name in row.settings)
    return (lambda config: name in config.row.settings), f"method: {methods}"


class TuningConfig(Config):
    """Which weights are trained, and in what form the frozen ones are held."""

    method: Annotated[str, TUNING_METHODS] = "lora"
    """Which weights train. Whole models: full (every weight), last_layers (the last layers and the
    head), progressive (from the last layer down to all). Adapters on a frozen base: lora, qlora
    (the base in 4-bit NF4), rslora, dora, pissa, ia3, bottleneck. Virtual tokens before the text:
    prefix, prompt, p_tuning. docs/tuning.md compares them."""
    rank: int = only_when(*_read_by("rank"), 16, ge=1)
    """Rank of the adapter's matrices. An adapter that continues to train keeps its rank."""
    alpha: int = only_when(*_read_by("alpha"), 32, ge=1)
    """The adapter's output is scaled by alpha / rank; with rslora by alpha / sqrt(rank)."""
    dropout: float = only_when(*_read_by("dropout"), 0.0, ge=0, lt=1)
    """Dropout on the adapter's input. DPO and PPO compare log-probabilities, so 0 is best there."""
    target_modules: str | tuple[str, ...] = only_when(*_read_by("target_modules"), "all-linear")
    """Which layers get an adapter: all-linear, or names such as [q_proj, v_proj]."""
    trained_layers: int = only_when(*_read_by("trained_layers"), 2, ge=1)
    """How many of the last layers train, with the last norm and a head of its own."""
    unfrozen_by: float = only_when(*_read_by("unfrozen_by"), 0.5, gt=0, le=1)
    """Share of the steps after which all layers train. The last layer trains from the first step,
    the others follow one by one, the embedding at the end (Howard and Ruder, 2018)."""
    bottleneck_size: int = only_when(*_read_by("bottleneck_size"), 16, ge=1)
    """Width of the small network behind a layer."""
    placement: Literal["pfeiffer", "houlsby"] = only_when(*_read_by("placement"), "pfeiffer")
    """Where it stands: behind the feed-forward part (pfeiffer), or behind attention, too
    (houlsby)."""
    virtual_tokens: int = only_when(*_read_by("virtual_tokens"), 20, ge=1)
    """How many virtual tokens are learnt: keys and values of every layer (prefix), embeddings
    (prompt), or embeddings that a small network makes (p_tuning)."""
    encoder_size: int = only_when(*_read_by("encoder_size"), 128, ge=1)
    """Width of the network that makes the embeddings."""

    def checks_before_work(self) -> Sequence[Check]:
        """Try a training step on weights in 4 bits, where they are asked for."""
        return (check_quantized,) if self.quantized else ()

    @property
    def row(self) -> TuningMethod:
        """The method's row of the table."""
        return TUNING_METHODS[self.method]

    @property
    def has_adapter(self) -> bool:
        """Whether the base stays as it is, and what is trained is saved beside it."""
        return self.row.has_adapter

    @property
    def quantized(self) -> bool:
        """Whether the frozen base is held in 4 bits."""
        return self.row.quantizes_base

    @property
    def unfreezes_by(self) -> float | None:
        """The share of the steps after which all layers train; None where none are unfrozen."""
        return self.unfrozen_by if "unfrozen_by" in self.row.settings else None

    def peft_config(self, model: Any, task_type: str, modules_to_save: tuple[str, ...] = ()) -> Any:
        """Return PEFT's own config of a new adapter on a model."""
        make = self.row.peft_config
        assert make is not None, f"{self.method} has no adapter"
        config = make(self, model)
        config.task_type = task_type
        if modules_to_save:
            config.modules_to_save = list(modules_to_save)
        return config


def for_use(use: Use) -> Callable[[TuningConfig], TuningConfig]:
    """Return a check of a stage's tuning: it raises `ValueError` where the method does not serve.

    ``tuning: Annotated[TuningConfig, AfterValidator(for_use("ppo"))]``.
    """

    def check(config: TuningConfig) -> TuningConfig:
        reason = config.row.cannot.get(use)
        if reason is not None:
            served = TUNING_METHODS.where(lambda row: use not in row.cannot)
            raise ValueError(
                f"method is {config.method}, which {USES[use]} cannot use: {reason}. Set it to "
                f"{served}"
            )
        return config

    return check


def check_quantized() -> None:
    """Raise `ModelError` where this machine cannot train on 4-bit weights."""
    import torch

    from plumbline.lm.quantized import nf4_config, training_problem

    nf4_config("auto")
    problem = training_problem("cuda" if torch.cuda.is_available() else "cpu")
    if problem is not None:
        raise ModelError(f"method: qlora does not work here: {problem}. Set method: lora.")


def parameter_counts(model: Any) -> dict[str, float]:
    """Return how many parameters a model has, and how many of them train."""
    parameters = list(model.parameters())
    return {
        "parameters": float(sum(map(size_of, parameters))),
        "trainable_parameters": float(sum(size_of(p) for p in parameters if p.requires_grad)),
    }


def switch_dropout_off(model: Any) -> None:
    """Switch dropout off: it would make the ratio of two policies' probabilities random."""
    from torch import nn

    model.eval()  # some layers ask for the mode, and have no module for it
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
