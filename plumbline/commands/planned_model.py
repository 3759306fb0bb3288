"""The model that ``plumbline plan`` plans for: its shape, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plumbline.errors import ConfigError

_EMBEDDED = "embedded"


def shape_of(model: str | None, config: Any) -> tuple[Any, int]:
    """Return the shape of a model, and the bytes of a weight in its files.

    ``model``: a size or a folder; None: the one that a recipe's config names, which may be the
    embedded one. Raises `ConfigError` where it is none of these, or cannot be planned.
    """
    from plumbline.runs.artifacts import read_json
    from plumbline.training.memory_plan import MODELS, Shape

    base: Any = getattr(config, "base", None)
    scratch = getattr(base, "scratch", None)
    if model is None and scratch is not None and base.name_or_path == _EMBEDDED:
        head_size = scratch.hidden_size // scratch.heads
        shape = Shape(
            scratch.hidden_size, scratch.intermediate_size, scratch.layers, scratch.heads,
            scratch.heads, head_size, scratch.vocab_size, query_norms=True,
        )  # fmt: skip
        return shape, 4
    model = model or _own_model(config)
    if model in MODELS:
        return MODELS[model], 2
    file = _config_file(Path(model).expanduser())
    if file is None:
        raise ConfigError(
            f"The shape of the model {model} is not known here. Give --model a folder with a "
            f"config.json, or one of {', '.join(MODELS)}."
        )
    try:
        values = read_json(file)
        if values.get("quantization_config"):
            raise ValueError("its weights are quantised")
        held = 4 if values.get("dtype", values.get("torch_dtype")) == "float32" else 2
        return Shape.of(values), held
    except (ValueError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{file} describes no model that can be planned: {error}. Take one of "
            f"{', '.join(MODELS)} that is about as large."
        ) from None


def _config_file(folder: Path) -> Path | None:
    """Return the config of a model, or of what an adapter stands on; None where there is none."""
    from plumbline.lm.model_folder import ADAPTER_CONFIG, REFERENCE, source_of

    if (folder / ADAPTER_CONFIG).is_file() or (folder / REFERENCE).is_file():
        folder = Path(source_of(folder).base.name_or_path)
    return folder / "config.json" if (folder / "config.json").is_file() else None


def _own_model(config: Any) -> str:
    """Return the model that a recipe's config names."""
    for name in ("model", "base"):
        value = getattr(config, name, None)
        if value is not None and value != name.upper():  # which stands for one that must be set
            return str(getattr(value, "name_or_path", value))
    raise ConfigError("The recipe names no model. Give --model.")
