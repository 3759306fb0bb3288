"""How many weights a model has, and how much of it is still to be fetched, before it is opened.

A local folder and a GGUF file say it in their headers. For a model of the hub that is not in the
cache yet, the hub says it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.lm.gguf_file import is_gguf
from plumbline.lm.weight_files import numbers_in

#: How long the hub may take to answer; without an answer nothing is known.
_HUB_SECONDS = 5.0


class ModelSize(NamedTuple):
    """The size of a model."""

    parameters: int
    """Numbers in its weights."""
    to_fetch: int = 0
    """Bytes that have to be downloaded; 0 for a local model or one in the cache."""

    @property
    def float32_bytes(self) -> int:
        """Bytes of all weights in float32."""
        return 4 * self.parameters


def model_size(name_or_path: str) -> ModelSize | None:
    """Return the size of a model, or None where it cannot be known without opening the model."""
    path = Path(name_or_path).expanduser()
    if is_gguf(path):
        return ModelSize(_in_gguf(path)) if path.is_file() else None
    if (path / "config.json").is_file():
        return ModelSize(_in_folder(path))
    return None if path.exists() else _on_hub(name_or_path)


def _in_folder(folder: Path) -> int:
    return sum(numbers_in(file) for file in folder.glob("*.safetensors"))


def _in_gguf(file: Path) -> int:
    try:
        import gguf

        return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(str(file)).tensors)
    except Exception:  # the reader raises errors of many kinds, told elsewhere
        return 0


def _on_hub(name: str) -> ModelSize | None:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        cached = try_to_load_from_cache(name, "config.json")
        in_cache = _in_folder(Path(cached).parent) if isinstance(cached, str | os.PathLike) else 0
        if in_cache or constants.HF_HUB_OFFLINE:
            return ModelSize(in_cache) if in_cache else None
        info = HfApi().model_info(name, files_metadata=True, timeout=_HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError):
        return None  # that there is no such model is said by its own check
    return _as_told(info)


def _as_told(info: Any) -> ModelSize | None:
    """Return the size by what the hub knows of the files; safetensors count, as in loading."""
    weights = [f.size or 0 for f in info.siblings or () if f.rfilename.endswith(".safetensors")]
    counted = getattr(info, "safetensors", None)
    if counted is not None and counted.total:
        return ModelSize(int(counted.total), sum(weights))
    # Files of 16-bit numbers, as almost all on the hub are.
    return ModelSize(sum(weights) // 2, sum(weights)) if any(weights) else None
