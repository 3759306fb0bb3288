"""Energy that a stage took, where the machine counts it: processors by RAPL, GPUs by NVML.

Counters are those of the whole machine, so other work on it is in them.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from pathlib import Path
from typing import Any

_RAPL = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"
_MICRO, _MILLI = 1e-6, 1e-3


class EnergyMeter:
    """Reads the counters when it is made, and again when it is asked."""

    def __init__(self, rapl: Path = _RAPL) -> None:
        self._rapl = rapl
        self._started = time.monotonic()
        self._processors = _rapl_counters(rapl)
        self._gpus = _nvml_counters()

    def reading(self) -> dict[str, Any]:
        """Return what the manifest of a stage keeps.

        ``processor_seconds`` of this process and its children; and where there are counters
        ``energy``: ``joules`` in so many ``seconds``, and ``of`` which parts of the machine.
        """
        use: dict[str, Any] = {"processor_seconds": round(_processor_seconds(), 1)}
        joules, parts = 0.0, []
        for name, before, after, largest in (
            ("processors", self._processors, _rapl_counters(self._rapl), _rapl_ranges(self._rapl)),
            ("GPUs", self._gpus, _nvml_counters(), {}),
        ):
            if before and before.keys() == after.keys():
                # A counter of RAPL starts again at 0 after its range.
                joules += sum((after[k] - before[k]) % largest.get(k, float("inf")) for k in before)
                parts.append(name)
        if parts:
            seconds = round(time.monotonic() - self._started, 3)
            use["energy"] = {"joules": round(joules, 1), "seconds": seconds, "of": parts}
        return use


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _rapl_counters(folder: Path) -> dict[str, float]:
    """Return joules by package; empty where the system has no counters or keeps them to itself."""
    return _read_rapl(folder, "energy_uj")


def _rapl_ranges(folder: Path) -> dict[str, float]:
    return _read_rapl(folder, "max_energy_range_uj")


def _read_rapl(folder: Path, name: str) -> dict[str, float]:
    try:
        # intel-rapl:0 is a package; intel-rapl:0:1 is a part of it, counted in it already.
        return {
            file.parent.name: int(file.read_text()) * _MICRO
            for file in folder.glob(f"intel-rapl:*/{name}")
            if file.parent.name.count(":") == 1
        }
    except (OSError, ValueError):
        return {}


def _nvml_counters() -> dict[str, float]:
    """Return joules by GPU; empty where there is none, or where it has no counter."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    try:
        nvml = ctypes.CDLL(_NVML)
        if nvml.nvmlInit_v2() != 0:
            return {}
        counters = {}
        for number in range(torch.cuda.device_count()):
            handle, joules = ctypes.c_void_p(), ctypes.c_ulonglong()
            if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) != 0:
                return {}
            if nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(joules)) != 0:
                return {}
            counters[f"gpu{number}"] = joules.value * _MILLI
        return counters
    except (OSError, AttributeError):
        return {}
