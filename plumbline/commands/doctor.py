"""What this machine can do, found by trying it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plumbline import privacy
from plumbline.runs.machine import machine, versions
from plumbline.runs.progress import size

Finding = tuple[str, bool, str]
_HUB_SECONDS = 5.0


def examine(console: Console, *, offline: bool) -> None:
    """Print what was found. A cross marks what is missing, which may not be needed."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, good, finding in findings(offline=offline):
        table.add_row("[green]✓[/green]" if good else "[yellow]✗[/yellow]", name, escape(finding))
    console.print(table)


def findings(*, offline: bool) -> Iterator[Finding]:
    """Yield name, whether it is there, and what was found."""
    packages = versions()
    import torch

    here = machine()
    yield (
        "cores",
        True,
        f"{here['cores']} ({here['architecture']}, {here['threads']} torch threads)",
    )
    yield "memory", True, size(here["memory_bytes"])
    yield "disk", True, f"{size(shutil.disk_usage(Path.cwd()).free)} free here"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        yield "GPU", True, f"{here['device']}, {size(memory)}"
    else:
        yield "GPU", False, "none; everything runs on the CPU"
    yield from _fast_paths()
    yield "bfloat16", True, _attempt(_bfloat16)[1]
    for package, version in packages.items():
        yield package, True, version
    for package in ("bitsandbytes", "gguf", "argilla", "deepspeed"):
        if importlib.util.find_spec(package) is None:
            extra = {"bitsandbytes": "qlora"}.get(package, package)
            yield package, False, f"not installed: pip install 'plumbline-rlhf[{extra}]'"
    yield "4-bit (NF4)", *_attempt(_four_bit)
    yield "model hub", *(_hub() if not offline else (False, "not tried (--offline)"))
    reporting = privacy.sending()
    yield (
        "telemetry",
        not reporting,
        "off" if not reporting else f"allowed by {', '.join(reporting)}",
    )


def _fast_paths() -> Iterator[Finding]:
    """Try each fast path of a GPU on a small model; say which are on, and why others are not."""
    from plumbline.lm.gpu.smoke_test import try_fast_paths

    good, message = _attempt(try_fast_paths)
    yield "fast paths", good, message
    from plumbline.lm.gpu.status import findings

    for (path, _, kind), result in findings().items():
        yield path.value, result.on, ", ".join(filter(None, (kind, result.reason))) or "on"


def _attempt(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except Exception as error:  # any failure is a finding
        return False, f"does not work: {type(error).__name__}: {str(error).splitlines()[0][:120]}"


def _bfloat16() -> str:
    import torch

    native = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if not native and Path("/proc/cpuinfo").exists():
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        native = "avx512_bf16" in flags or "amx_bf16" in flags
    return "native" if native else "emulated, and slow"


def _four_bit() -> str:
    """Do with 4-bit weights what a training stage does: evaluate, then take a gradient."""
    import torch

    from plumbline.lm.quantized import training_problem
    from plumbline.quiet import silence_libraries

    silence_libraries()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    problem = training_problem(device)
    if problem is not None:
        raise RuntimeError(problem)
    return f"works on {device}"


def _hub() -> tuple[bool, str]:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return False, "not tried (HF_HUB_OFFLINE=1)"
    from huggingface_hub import HfApi, constants

    try:
        HfApi().model_info("gpt2", timeout=_HUB_SECONDS)
    except Exception as error:
        return False, f"{constants.ENDPOINT} cannot be reached ({type(error).__name__})"
    return True, f"{constants.ENDPOINT} answers"
