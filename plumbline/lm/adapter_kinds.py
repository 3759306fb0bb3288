"""What the kind of an adapter allows: training it further, and merging it."""

from __future__ import annotations

from pathlib import Path

from plumbline.errors import ModelError
from plumbline.lm.model_folder import ADAPTER_CONFIG
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.tuning_methods import TUNING_METHODS, kind_of_adapter
from plumbline.runs.artifacts import read_json


def check_continues(adapter: Path, tuning: TuningConfig) -> None:
    """Raise `ModelError` where an adapter cannot continue to train as a tuning says."""
    kind = _kind_of(adapter)
    if kind in _NOT_TRAINED_ON:
        raise ModelError(
            f"{adapter} holds virtual tokens ({kind}), which PEFT does not train further and no "
            "weight can hold. Train the next stage from the model before it."
        )
    if kind != tuning.row.kind:
        whole = " To train another way, merge it first (tuning.method: full)."
        raise ModelError(
            f"{adapter} is an adapter of the kind {kind}, and tuning.method is {tuning.method}. "
            f"An adapter continues to train as what it is: set tuning.method to {kind}."
            + (whole if _merges(adapter) else "")
        )


_NOT_TRAINED_ON = tuple(
    name for name, row in TUNING_METHODS.items() if row.weights == "virtual tokens"
)


def _kind_of(adapter: Path) -> str:
    return kind_of_adapter(read_json(adapter / ADAPTER_CONFIG))


def _merges(adapter: Path) -> bool:
    kind = _kind_of(adapter)
    return kind not in TUNING_METHODS or TUNING_METHODS[kind].merges


def check_merges(adapter: Path) -> None:
    """Raise `ModelError` where no weight of the base can hold an adapter."""
    if not _merges(adapter):
        raise ModelError(
            f"{adapter} is an adapter of the kind {_kind_of(adapter)}, which no weight of its base "
            "can hold, so it cannot be merged. Use it as an adapter on its base, or train another "
            "way (tuning.method: lora)."
        )
