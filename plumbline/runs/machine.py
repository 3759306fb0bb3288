"""What results and speed may depend on: package versions, cores, memory, the device."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import psutil

PACKAGES_THAT_MATTER = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "deepspeed",
    "tokenizers", "safetensors", "numpy", "gguf",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter to results."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES_THAT_MATTER:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def machine() -> dict[str, Any]:
    """Return what results and speed may depend on; nothing that names the machine or its user."""
    facts: dict[str, Any] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": len(psutil.Process().cpu_affinity())
        if sys.platform == "linux"
        else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        cuda = torch.cuda.is_available()
        facts["device"] = torch.cuda.get_device_name(0) if cuda else "cpu"
    return facts
