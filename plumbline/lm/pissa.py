"""PiSSA (Meng et al., 2024): an adapter that starts as the largest part of the base's weights.

PEFT takes that part out of the base, W = W' + s B0 A0, and trains W' + s B A. What was trained is
saved as an ordinary LoRA on the base as it was: ``s (B A - B0 A0)`` is ``s [B, -B0] [A; A0]``, of
twice the rank (the paper's section 4).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from plumbline.errors import ModelError
from plumbline.lm.model_folder import ADAPTER, ADAPTER_CONFIG
from plumbline.runs.artifacts import read_json, write_json

if TYPE_CHECKING:
    from plumbline.lm.tuning import TuningConfig

_WEIGHTS = "adapter_model.safetensors"
_START = "pissa_start"


def remember_pissa_start(model: Any, tuning: TuningConfig) -> None:
    """Keep the first weights of a new adapter with the model; raise `ModelError` if it is cut."""
    from peft import get_peft_model_state_dict

    start = get_peft_model_state_dict(model, adapter_name=ADAPTER, save_embedding_layers=False)
    smallest = min(min(matrix.shape) for matrix in start.values())
    if smallest < tuning.rank:
        raise ModelError(
            f"tuning.rank is {tuning.rank}, and tuning.method pissa takes as many parts out of "
            f"each matrix, of which one has only {smallest}. Set tuning.rank to {smallest} or less."
        )
    setattr(model, _START, {name: matrix.detach().clone() for name, matrix in start.items()})


def save_as_lora(model: Any, folder: Path) -> None:
    """Turn a saved PiSSA adapter into a LoRA on the base as it was; leave any other as it is."""
    from safetensors.torch import load_file, save_file

    start = getattr(model, _START, None)
    if start is None:
        return
    weights = {}
    for name, matrix in load_file(folder / _WEIGHTS).items():
        first = start[name].to(matrix)
        is_first = ".lora_A." in name
        weights[name] = torch.cat([matrix, first if is_first else -first], dim=0 if is_first else 1)
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    config = read_json(folder / ADAPTER_CONFIG)
    config |= {
        "r": 2 * config["r"],
        "lora_alpha": 2 * config["lora_alpha"],
        "init_lora_weights": True,
    }
    write_json(folder / ADAPTER_CONFIG, config)
