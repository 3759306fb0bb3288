"""GGUF files, as llama.cpp has them: one file with weights, tokenizer and chat template.

transformers reads them, with quantised weights unpacked. They are written as an ordinary model
folder once, so that everything that reads models reads these as well.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from plumbline.errors import ModelError
from plumbline.lm.load_report import LoadReport

T = TypeVar("T")
#: Number formats of a GGUF file that are no quantised blocks, as torch calls them.
_PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def is_gguf(name_or_path: str | Path) -> bool:
    """Return whether a name is that of a GGUF file."""
    return Path(name_or_path).suffix.lower() == ".gguf"


def write_model_folder(file: Path, folder: Path, dtype: str = "auto") -> None:
    """Write a GGUF file as a model folder that ``from_pretrained`` reads. Raises `ModelError`.

    Weights have the number format ``dtype``. auto: the file's own, and float32 for quantised
    weights, which holds their values exactly.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reader = check_file(file)
    tokenizer = _read(file, AutoTokenizer.from_pretrained, str(file.parent), gguf_file=file.name)
    model, info = _read(
        file,
        AutoModelForCausalLM.from_pretrained,
        str(file.parent),
        gguf_file=file.name,
        dtype=getattr(torch, _own_dtype(reader) if dtype == "auto" else dtype),
        output_loading_info=True,
    )
    report = LoadReport(str(file), model, info)
    report.refuse(report.missing | report.unexpected, "a language model")
    _plain(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_file(file: Path) -> Any:
    """Return the reader of a file that can be loaded, by its header. Raises `ModelError`."""
    from transformers import AutoConfig

    reader = _opened(file)
    _check_contents(file, reader)
    config = _read(file, AutoConfig.from_pretrained, str(file.parent), gguf_file=file.name)
    _check_positions(file, reader, config)
    return reader


def _opened(file: Path) -> Any:
    """Return the reader of a file that is a whole GGUF file."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"{file} is a GGUF file, and the package gguf, which reads them, is not installed: "
            "pip install 'plumbline-rlhf[gguf]'."
        )
    import gguf

    try:
        with file.open("rb") as start:
            magic = start.read(4)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from error
    if magic != b"GGUF":
        raise ModelError(
            f"{file} is not a GGUF file: it begins with {magic!r} and not with b'GGUF'. A file of "
            "a few lines is often a Git LFS pointer or an error page: fetch the model again."
        )
    try:
        return gguf.GGUFReader(str(file))
    except Exception as error:  # a reader that runs beyond the end raises errors of many kinds
        raise ModelError(
            f"{file} is a damaged GGUF file, or was not downloaded to its end "
            f"({file.stat().st_size:,} bytes; {type(error).__name__}: {error}). Fetch it again."
        ) from error


def _check_contents(file: Path, reader: Any) -> None:
    """Raise `ModelError` if a file is not the whole of a model."""
    parts = _value(reader, "split.count", 1)
    if parts > 1:
        raise ModelError(
            f"{file} is one of the {parts} parts of a model. Join them with llama.cpp's "
            "llama-gguf-split --merge and give the whole file."
        )
    kind = _value(reader, "general.type", "model")
    if kind != "model":
        raise ModelError(f"{file} holds no language model: its general.type is {kind!r}.")


def _check_positions(file: Path, reader: Any, config: Any) -> None:
    """Raise `ModelError` if positions are scaled in a way that transformers would pass over."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if parameters.get("rope_type", "default") != "default":
        return
    scaling = _value(reader, f"{_value(reader, 'general.architecture', '')}.rope.scaling.type", "")
    factors = next((t.name for t in reader.tensors if t.name.startswith("rope_")), None)
    if factors is None and scaling in ("", "none"):
        return
    raise ModelError(
        f"{file} scales its rotary positions ({factors or f'rope.scaling.type: {scaling}'}), which "
        "transformers does not read from GGUF files: the model would be another one, without a "
        "message. Give the model as a folder with safetensors."
    )


def _read(file: Path, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a ``from_pretrained``; what it raises of a whole GGUF file becomes `ModelError`."""
    import transformers

    try:
        return function(*arguments, **options)
    except Exception as error:  # transformers' readers of GGUF raise of every kind
        if isinstance(error, MemoryError):
            raise
        architecture = _value(_opened(file), "general.architecture", "none")
        raise ModelError(
            f"{file} cannot be read by transformers {transformers.__version__}; its architecture "
            f"is {architecture!r} ({type(error).__name__}: {str(error).strip() or 'no message'}). "
            "If the architecture is not one that it reads from GGUF files, give the model as a "
            "folder with safetensors."
        ) from error


def _value(reader: Any, key: str, default: Any) -> Any:
    field = reader.get_field(key)
    return default if field is None else field.contents()


def _own_dtype(reader: Any) -> str:
    """Return the number format of a file's weights: that of its matrices; norms are float32."""
    types = {tensor.tensor_type.name for tensor in reader.tensors}
    if not types <= set(_PLAIN):
        return "float32"
    return next(_PLAIN[name] for name in ("BF16", "F16", "F32") if name in types)


def _plain(model: Any) -> Any:
    """Return the same model without the mark of a quantised one, which is not saved."""
    import torch

    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
