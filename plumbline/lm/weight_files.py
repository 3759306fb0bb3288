"""What the weights of a model are, by the headers of its files: nothing is loaded."""

from __future__ import annotations

from math import prod
from pathlib import Path

from plumbline.errors import ModelError
from plumbline.lm.model_folder import Reference, load, read_object, source_of, translated

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


def check_weights(folder: Path) -> None:
    """Raise `ModelError` if the files of a model were cut, or hold other shapes than it says.

    The headers are read, and nothing else: what a file's header says must be as long as the file.
    A model on the hub is not fetched for this.
    """
    source = source_of(folder)
    for adapter in source.adapters:
        weight_shapes(adapter)
    base = Path(source.base.name_or_path)
    if not base.is_dir():
        return
    shapes = weight_shapes(base)
    _check_index(base, shapes)
    for name, expected in _expected_shapes(source.base).items():
        if shapes.get(name, expected) != expected:
            raise ModelError(
                f"The model {str(base)!r} cannot be loaded: {name} is {list(shapes[name])} in its "
                f"files, and its config says {list(expected)}. Its weights have other shapes than "
                "its config says. Fetch both again."
            )


def _check_index(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `ModelError` where the index of a model in several files names what is not there."""
    file = folder / "model.safetensors.index.json"
    if not file.exists():
        return
    places = read_object(file).get("weight_map")
    if not isinstance(places, dict):
        raise ModelError(f"{file} does not say where weights are. Fetch it again.")
    missing = sorted(
        {str(place) for place in places.values() if not (folder / str(place)).exists()}
    )
    if missing:
        raise ModelError(
            f"{folder} is not the whole of a model: {', '.join(missing[:3])} is not there, of "
            f"{len(set(map(str, places.values())))} files that its index names. Fetch it again."
        )
    lacking = sorted(places.keys() - shapes.keys())
    if lacking:
        raise ModelError(
            f"{folder} is not the whole of a model: {lacking[0]} is in its index and in none of "
            "its files. Fetch it again."
        )


def _expected_shapes(reference: Reference) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a language model by its config, by names that its files may have."""
    import torch
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    config = load(AutoConfig.from_pretrained, reference)
    is_packed = getattr(config, "quantization_config", None) is not None
    if is_packed or reference.trust_remote_code or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return {}  # what such a model is to be is seen where it is loaded
    with torch.device("meta"):
        model = translated(
            lambda _: AutoModelForCausalLM.from_config(config), reference.name_or_path
        )
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def weight_names(folder: Path) -> set[str]:
    """Return the names of the weights in a folder's safetensors files; none are read."""
    return set(weight_shapes(folder))


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights in a folder's safetensors files by name; none are read."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        with translated(lambda name: safe_open(name, framework="pt"), str(file)) as weights:
            for name in weights.keys():  # noqa: SIM118 - an open file, and no mapping
                shapes[name] = tuple(weights.get_slice(name).get_shape())
    return shapes


def numbers_in(file: Path) -> int:
    """Return the numbers in a safetensors file, by its header; 0 for a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="numpy") as weights:
            names = weights.keys()
            return sum(prod(weights.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError):
        return 0  # that it is damaged is said where it is opened
