"""Where a model lies: what a model artefact's folder refers to.

A model artefact is one of three folders:

- a whole model (``config.json``, ``model.safetensors``, tokenizer),
- a PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``, tokenizer), which names
  its base,
- a reference (``reference.json``) to a model in a local folder or on the hub, which is not copied.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbline.errors import ModelError
from plumbline.runs.artifacts import read_json, write_json

REFERENCE = "reference.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "default"
"""The name of the adapter that is being trained; PEFT writes that one at the folder's top."""


@dataclass(frozen=True)
class Reference:
    """A model that lies elsewhere, and how it is to be loaded."""

    name_or_path: str
    revision: str | None = None
    dtype: str = "auto"
    attention: str = "sdpa"
    trust_remote_code: bool = False

    def write(self, folder: Path) -> None:
        """Write ``reference.json``."""
        write_json(folder / REFERENCE, asdict(self))

    def options(self, *, quantize: bool) -> dict[str, Any]:
        """Return the keyword arguments of ``from_pretrained``."""
        import torch

        options: dict[str, Any] = {
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
            "attn_implementation": self.attention,
            "dtype": self.dtype if self.dtype == "auto" else getattr(torch, self.dtype),
        }
        if quantize:
            options["quantization_config"] = _nf4(options["dtype"])
        if torch.cuda.is_available():
            options["device_map"] = {"": torch.cuda.current_device()}
        return options


@dataclass(frozen=True)
class Source:
    """Where a model artefact's weights are: a base, and perhaps an adapter on it."""

    base: Reference
    adapter: Path | None


def source_of(folder: Path) -> Source:
    """Find out what a model artefact is made of."""
    reference = folder / REFERENCE
    base = Reference(**read_json(reference)) if reference.exists() else Reference(str(folder))
    adapter_config = folder / ADAPTER_CONFIG
    if not adapter_config.exists():
        if not reference.exists() and not (folder / "config.json").exists():
            raise ModelError(
                f"{folder} holds no model: it has neither config.json, {ADAPTER_CONFIG} "
                f"nor {REFERENCE}."
            )
        return Source(base, None)
    if not reference.exists():
        named = read_json(adapter_config)["base_model_name_or_path"]
        moved = folder.parent / Path(named).name  # the whole store may have been moved
        base = Reference(str(moved) if not Path(named).exists() and moved.exists() else named)
    return Source(base, folder)


def translate_errors(function: Any, name: str, **options: Any) -> Any:
    """Call a library's loader of a model by name; its errors become `ModelError`."""
    try:
        return function(name, **options)
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model {name!r} cannot be loaded: {first} "
            "A name is a local folder or a hub id; a hub id needs the network (or a filled cache, "
            "with HF_HUB_OFFLINE=1) and, for gated models, a login: hf auth login."
        ) from error


def _nf4(dtype: Any) -> Any:
    import importlib.util

    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            "method: qlora needs bitsandbytes, which is not installed: "
            "pip install 'plumbline-rlhf[qlora]', or set method: lora."
        )
    compute = torch.float32 if dtype in ("auto", torch.float32) else dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
