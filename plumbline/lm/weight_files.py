"""What the weights of a model are, by the headers of its files: nothing is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path

from plumbline.errors import ModelError
from plumbline.lm.model_folder import source_of, translated

#: Names of the layer on a decoder that makes a reward of it.
HEADS = ("score", "classifier")


def check_reward_head(folder: Path) -> None:
    """Raise `ModelError` if a model has no trained reward head, by the names of its weights alone.

    A model on the hub is not fetched for this.
    """
    source = source_of(folder)
    place = source.adapter or Path(source.base.name_or_path)
    names = weight_names(place)
    if names and not any(set(name.split(".")) & set(HEADS) for name in names):
        raise ModelError(
            f"{place} has no trained reward head ({HEADS[0]}.weight is not in it): it is a "
            "language model, and its scores would be random. Give a reward model."
        )


def weight_names(folder: Path) -> set[str]:
    """Return the names of the weights in a folder's safetensors files; none are read."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with translated(lambda name: safe_open(name, framework="pt"), str(file)) as weights:
            names.update(weights.keys())
    return names


def numbers_in(file: Path) -> int:
    """Return the numbers in a safetensors file, by its header; 0 for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as weights:
            names = weights.keys()
            return sum(prod(weights.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError):
        return 0  # that it is damaged is said where it is opened
