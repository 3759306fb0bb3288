"""Measuring what is watched while a model trains: updates of weights, speed, memory, GPU use."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from plumbline.lm.sharding import local
from plumbline.runs.processes import of_all_processes, sharding
from plumbline.runs.stage import Stage
from plumbline.training.health import HealthReport

#: The size of an update is measured on at most so many weights, evenly over all that train.
_MOST_WEIGHTS = 4_000_000
_GIB = 1 << 30


def update_ratio(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return |after - before| / |before| over all weights together; 0 where those are all 0.

    Where the processes share the weights, each gives its own, and all get the ratio over all.
    Raises `ValueError` where the two have not the same number of tensors.
    """
    moved = sum(
        float((b.detach().float() - a.float()).square().sum())
        for a, b in zip(before, after, strict=True)
    )
    size = sum(float(a.float().square().sum()) for a in before)
    if sharding() is not None:
        moved, size = map(sum, zip(*of_all_processes((moved, size)), strict=True))
    return 0.0 if size == 0 else float((moved / size) ** 0.5)


class Monitor(TrainerCallback):  # type: ignore[misc]
    """Measures each step whose figures are logged, and warns once of what is unhealthy."""

    def __init__(self, stage: Stage, model: Any, tokens_seen: Any) -> None:
        self._stage, self._model, self._tokens_seen = stage, model, tokens_seen
        self.health = HealthReport()
        self._before: list[Tensor] | None = None
        self._ratio: float | None = None
        self._clock: tuple[float, int] | None = None
        self._peak = 0.0

    def metrics(self) -> dict[str, float]:
        """Return figures of the last step for metrics.jsonl."""
        return {} if self._ratio is None else {"update_ratio": self._ratio}

    def speed(self) -> dict[str, float]:
        """Return what depends on the machine, since it was last asked for."""
        now, tokens = time.monotonic(), int(self._tokens_seen())
        metrics: dict[str, float] = {"memory_gib": _memory() / _GIB}
        if self._clock is not None and tokens > self._clock[1]:
            seconds = max(now - self._clock[0], 1e-9)
            metrics["tokens_per_second"] = (tokens - self._clock[1]) / seconds
        self._clock = now, tokens
        use = gpu_use()
        return metrics if use is None else metrics | {"gpu_use": use}

    def warn(self, step: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Say what is unhealthy for the first time; return a mark for each in metrics.jsonl."""
        marks = {}
        for name, sentence in self.health.warnings(metrics, self._peak):
            marks[f"warning/{name}"] = 1.0
            self._stage.say(f"[yellow]step {step}: {sentence}.[/yellow]")
        return marks

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock, and note the largest learning rate."""
        self._peak = float(args.learning_rate)
        self._clock = time.monotonic(), int(self._tokens_seen())

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Note weights before a step whose figures will be logged."""
        if (state.global_step + 1) % args.logging_steps == 0:
            self._before = [weight.detach().clone() for weight in self._sample()]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure how far the step moved them."""
        if self._before is not None:
            self._ratio = update_ratio(self._before, self._sample())
            self._before = None

    def _sample(self) -> list[Tensor]:
        """Return parts of the weights that train, evenly over all of them."""
        weights = [p for p in map(local, self._trained()) if p.numel()]
        total = sum(p.numel() for p in weights)
        stride = max(1, -(-total // _MOST_WEIGHTS))
        return [p.detach().reshape(-1)[::stride] for p in weights]

    def _trained(self) -> list[Tensor]:
        return [p for p in self._model.parameters() if p.requires_grad]


def _memory() -> int:
    """Return the largest memory of the accelerator so far, or else that of this process now."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


def gpu_use() -> float | None:
    """Return the share of the last moments in which the GPU computed; None where nobody says."""
    if not torch.cuda.is_available():
        return None
    try:
        nvml, handle, rates = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p(), _Utilization()
        number = torch.cuda.current_device()
        if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
            return None
        if nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)):
            return None
        return float(rates.gpu) / 100
    except (OSError, AttributeError):
        return None
