"""Several processes for one training: asked for by options, or by a launcher such as torchrun.

Plumbline starts the processes of a training stage itself, and only for such a stage. Where a
launcher has started the command several times, the first process runs it and the others end; the
launcher's number of processes is that of each training stage.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.errors import ConfigError
from plumbline.runs.accelerate_configs import read_config
from plumbline.runs.processes import SHARDING

#: What trains over several processes.
WORKS = (
    "What works is `--launch ddp --processes N` on one machine, with a whole copy of the model in "
    "each process, and with GPUs `--launch fsdp2 --processes N`, where they share the weights"
)
DDP = "ddp"
#: Ways in which processes share the weights of a model, its gradients and its optimiser: one way by
#: two names.
SHARED = ("fsdp2", "zero3")
#: Variables that launchers set for their processes, and how those of others begin.
_NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
_PREFIXES = ("ACCELERATE_", "FSDP_", "GROUP_", "ROLE_", "TORCHELASTIC_")


class Launch(NamedTuple):
    """How the trainings of a run are started."""

    processes: int = 1
    """How many share each training that can be shared."""
    sharding: str | None = None
    """How they share its weights, one of `SHARED`; None: each has a whole copy."""


def launch_of(launch: str | None, processes: int | None) -> Launch:
    """Return how each training is started, from ``--launch`` and ``--processes``.

    ``launch`` is ddp, one of `SHARED`, or the file of an accelerate config, which may say how many
    processes. Raises `ConfigError` for what cannot be done, or would have no effect.
    """
    if launch is None and processes is None:
        return Launch()
    if launch is None:
        raise ConfigError(f"--processes {processes} without --launch is not possible. {WORKS}.")
    kind = launch
    if launch != DDP and launch not in SHARED:
        if not launch.endswith((".yaml", ".yml", ".json")):
            raise ConfigError(
                f"--launch {launch} is not possible: it is {DDP}, {', '.join(SHARED)}, or the file "
                f"of an accelerate config. {WORKS}."
            )
        config = read_config(Path(launch))
        kind, processes = config.kind, processes or config.processes
    if processes is None or processes < 2:
        raise ConfigError(f"--launch {launch} needs --processes N with N of 2 or more.")
    _refuse_without_gpus(kind, f"--launch {launch}", processes)
    _refuse_too_few_gpus(processes)
    return Launch(processes, None if kind == DDP else kind)


def adopt_launcher() -> tuple[int, Launch]:
    """Return which of a launcher's processes this is, and what the launcher asks for.

    0 and a single process without one. The launcher's variables are removed, so that what this
    process starts is not taken for one of the launcher's. Raises `ConfigError` for a launch that
    would train copies, or something other than it says.
    """
    rank, processes = (int(os.environ.get(name, value)) for name, value in _ALONE.items())
    kind = _asked_by_accelerate()
    if kind != DDP:
        _refuse_without_gpus(kind, "The accelerate config", processes)
    if int(os.environ.get("LOCAL_WORLD_SIZE", processes)) != processes:
        raise ConfigError(
            f"A launcher started {processes} processes on several machines, which is not possible. "
            f"{WORKS}."
        )
    if "WORLD_SIZE" not in os.environ and {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= set(
        os.environ
    ):
        raise ConfigError(
            "accelerate launch was asked for several processes and started one, as it does for a "
            "config without GPUs. Use `torchrun --nproc-per-node N`, or `--launch ddp "
            "--processes N`."
        )
    for name in list(os.environ):
        if name in _NAMES or name.startswith(_PREFIXES):
            del os.environ[name]
    if processes > 1:
        _refuse_too_few_gpus(processes)
    return rank, Launch(processes, kind if kind != DDP and processes > 1 else None)


def _asked_by_accelerate() -> str:
    """Return how accelerate's launcher says that the weights are shared."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
        if stage != "3":
            raise ConfigError(
                f"The accelerate config asks for DeepSpeed with ZeRO stage {stage or 'unknown'}, "
                f"which is not possible; stage 3 is. {WORKS}."
            )
        return "zero3"
    if not _is_set("ACCELERATE_USE_FSDP"):
        return DDP
    if os.environ.get("FSDP_VERSION") != "2":
        raise ConfigError(
            f"The accelerate config asks for FSDP 1, which is not possible. Set fsdp_version: 2. "
            f"{WORKS}."
        )
    return "fsdp2"


def refuse_launcher() -> None:
    """Raise `ConfigError` where a launcher started this process among others."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ConfigError(
            f"A launcher started this program in {processes} processes, each of which would train "
            f"a copy. Start it once. {WORKS}; `torchrun -m plumbline run …` means the same."
        )


def refuse_untrainable(stages: Iterable[Callable[..., Any]], processes: int) -> None:
    """Raise `ConfigError` where a stage trains in one process only, and several are asked for."""
    names = sorted(
        {stage.__name__ for stage in stages if getattr(stage, "trains_in", None) == "one process"}
    )
    if processes > 1 and names:
        raise ConfigError(f"{' and '.join(names)} cannot train in {processes} processes. {WORKS}.")


def refuse_unshared_weights(stages: Iterable[Callable[..., Any]], sharding: str | None) -> None:
    """Raise `ConfigError` where a training cannot share its weights, and that is asked for."""
    names = sorted(
        {
            stage.__name__
            for stage in stages
            if getattr(stage, "trains_in", None) == "several processes"
            and not getattr(stage, "shares_weights", False)
        }
    )
    if sharding is not None and names:
        raise ConfigError(
            f"{' and '.join(names)} cannot share the weights (--launch {sharding}). Use --launch "
            "ddp, with a whole copy of the model in each process."
        )


def sharding_of(stage: Callable[..., Any], sharding: str | None) -> str | None:
    """Return how a stage's processes share its weights; trainings alone do."""
    return sharding if getattr(stage, "trains_in", None) == "several processes" else None


def is_shared(stage: Callable[..., Any]) -> bool:
    """Return whether a stage is one that several processes can share."""
    trains = getattr(stage, "trains_in", None) == "several processes"
    return trains or getattr(stage, "spreads_rows", False)


def environments(processes: int, sharding: str | None = None) -> list[dict[str, str]]:
    """Return the variables by which the processes of a stage find each other, for each process.

    ``sharding``: how they share its weights.
    """
    if processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads_of_each(processes)),  # or accelerate would choose
        # Without it accelerate makes each process a training of its own where there is no GPU.
        "ACCELERATE_USE_CPU": str(gpus() == 0),
        **({} if sharding is None else {SHARDING: sharding}),
    }
    return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(processes)]


def this_process(environment: Mapping[str, str]) -> int:
    """Return which process of a stage this is, after its variables; take its GPU."""
    if "RANK" not in environment:
        return 0
    import torch

    number = int(environment["RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(number)  # where models are loaded
    return number


def threads_of_each(processes: int) -> int | None:
    """Return how many threads each process computes with; None leaves it to the libraries."""
    return None if processes == 1 else max(1, (os.cpu_count() or 1) // processes)


_ALONE = {"RANK": "0", "WORLD_SIZE": "1"}


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")


def _refuse_without_gpus(kind: str, what: str, processes: int) -> None:
    if kind != DDP and gpus() == 0:
        raise ConfigError(
            f"{what} asks for {kind}, where GPUs share the weights of a model, and there is no GPU "
            f"here. Use --launch ddp --processes {max(processes, 2)}, with a whole copy of the "
            "model in each process."
        )


def _refuse_too_few_gpus(processes: int) -> None:
    count = gpus()
    if 0 < count < processes:
        raise ConfigError(
            f"{processes} processes are asked for, and there are {count} GPUs; each needs one. Set "
            "fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU."
        )


def gpus() -> int:
    """Return how many GPUs there are."""
    import torch

    return torch.cuda.device_count()
