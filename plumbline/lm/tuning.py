"""Which weights are trained: all of them, or an adapter on a frozen base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from plumbline.config import Check, Config, only_when
from plumbline.errors import ModelError

_ADAPTER = "method: lora or qlora"


def _has_adapter(config: TuningConfig) -> bool:
    return config.method != "full"


class TuningConfig(Config):
    """Which weights are trained, and in what form the frozen ones are held."""

    method: Literal["full", "lora", "qlora"] = "lora"
    """full: every weight. lora: an adapter on a frozen base. qlora: the same, base in 4-bit NF4."""
    rank: int = only_when(_has_adapter, _ADAPTER, 16, ge=1)
    """Rank of the adapter's matrices. An adapter that continues to train keeps its rank."""
    alpha: int = only_when(_has_adapter, _ADAPTER, 32, ge=1)
    """The adapter's output is scaled by alpha / rank."""
    dropout: float = only_when(_has_adapter, _ADAPTER, 0.0, ge=0, lt=1)
    """Dropout on the adapter's input. DPO and PPO compare log-probabilities, so 0 is best there."""
    target_modules: str | tuple[str, ...] = only_when(_has_adapter, _ADAPTER, "all-linear")
    """Which layers get an adapter: all-linear, or names such as [q_proj, v_proj]."""

    def checks_before_work(self) -> Sequence[Check]:
        """Try a training step on weights in 4 bits, where they are asked for."""
        return (check_quantized,) if self.quantized else ()

    @property
    def quantized(self) -> bool:
        """Whether the frozen base is held in 4 bits."""
        return self.method == "qlora"

    def peft_config(self, task_type: str, modules_to_save: tuple[str, ...] = ()) -> Any:
        """Return PEFT's own config for this tuning."""
        from peft import LoraConfig

        modules = self.target_modules
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            modules_to_save=list(modules_to_save) or None,
            task_type=task_type,
        )


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
        "parameters": float(sum(p.numel() for p in parameters)),
        "trainable_parameters": float(sum(p.numel() for p in parameters if p.requires_grad)),
    }


def switch_dropout_off(model: Any) -> None:
    """Switch dropout off: it would make the ratio of two policies' probabilities random."""
    from torch import nn

    model.eval()  # some layers ask for the mode, and have no module for it
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
