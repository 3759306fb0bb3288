"""Several processes for one training: asked for by options, or by a launcher such as torchrun.

Plumbline starts the processes of a training stage itself, and only for such a stage. Where a
launcher has started the command several times, the first process runs it and the others end; the
launcher's number of processes is that of each training stage. On several machines the first process
of each takes part in the stages (`plumbline.runs.nodes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.errors import ConfigError, brief
from plumbline.runs.accelerate_configs import Asked, asked_by_accelerate, is_host, read_config
from plumbline.runs.processes import SHARDING
from plumbline.runs.shardings import DDP, SHARDINGS, SHARED, check_deepspeed

#: What trains over several processes.
WORKS = (
    "What works is `--launch ddp --processes N`, with a whole copy of the model in each process, "
    "and with GPUs `--launch fsdp2 --processes N`, where they share the weights"
)
#: Variables that launchers set for their processes, and how those of others begin.
_NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
_PREFIXES = ("ACCELERATE_", "FSDP_", "GROUP_", "ROLE_", "TORCHELASTIC_")


class Place(NamedTuple):
    """Which of several machines this is, and where the first of them is found."""

    machines: int
    """How many there are."""
    number: int
    """Which this is, counted from 0."""
    address: str
    """A name or an IP address of the first one."""
    port: int
    """Where it waits for the others."""
    store_key: str | None = None
    """Where the launcher has a store at that port: the key by which it tells another port."""


class Launch(NamedTuple):
    """How the trainings of a run are started."""

    processes: int = 1
    """How many share each training that can be shared, on all machines together."""
    sharding: str | None = None
    """How they share its weights, one of `SHARED`; None: each has a whole copy."""
    settings: Mapping[str, object] = {}
    """What an accelerate config asks of settings of a recipe (`check_settings`)."""
    place: Place | None = None
    """None: all on this machine."""


class Options(NamedTuple):
    """Options of the command line about how trainings are started."""

    launch: str | None = None
    processes: int | None = None
    machine_rank: int | None = None
    main_process_ip: str | None = None


def how_to_launch(options: Options) -> tuple[int, Launch]:
    """Return which of a launcher's processes this is, and how each training is started.

    Raises `ConfigError` where options and launcher contradict each other.
    """
    # A launcher says how many processes there are, and may leave it to an option how they share.
    kind = options.launch if options.launch in (DDP, *SHARED) else None
    rank, launched = adopt_launcher(kind)
    if launched.processes == 1:
        return rank, launch_of(*options)
    if options not in (Options(), Options(kind)):
        raise ConfigError(
            f"A launcher has started {launched.processes} processes, and options say how many to "
            "start, or where. Leave one of the two out."
        )
    return rank, launched


def launch_of(
    launch: str | None,
    processes: int | None,
    machine_rank: int | None = None,
    main_process_ip: str | None = None,
) -> Launch:
    """Return how each training is started, from the options of the command line.

    ``launch`` is ddp, one of `SHARED`, or the file of an accelerate config, which may say how many
    processes and machines. Raises `ConfigError` for what cannot be done, or would have no effect.
    """
    machines = {"--machine-rank": machine_rank, "--main-process-ip": main_process_ip}
    about_machines = [f"{name} {value}" for name, value in machines.items() if value is not None]
    if launch is None and processes is None and not about_machines:
        return Launch()
    if about_machines and (launch is None or launch in (DDP, *SHARED)):
        raise ConfigError(
            f"{about_machines[0]} needs --launch FILE, an accelerate config with num_machines of "
            "2 or more; or start the command by torchrun on every machine."
        )
    if launch is None:
        raise ConfigError(f"--processes {processes} without --launch is not possible. {WORKS}.")
    kind, place = launch, None
    settings: Mapping[str, object] = {}
    if launch != DDP and launch not in SHARED:
        if not launch.endswith((".yaml", ".yml", ".json")):
            raise ConfigError(
                f"--launch {launch} is not possible: it is {DDP}, {', '.join(SHARED)}, or the file "
                f"of an accelerate config. {WORKS}."
            )
        config = read_config(Path(launch))
        kind, processes = config.kind, processes or config.processes
        settings = config.settings
        place = _place_of(config, launch, machine_rank, main_process_ip)
        if config.on == "cpu" and gpus() > 0:
            raise ConfigError(
                f"{launch} asks for trainings on the CPU, and there are GPUs here. Hide them "
                "(CUDA_VISIBLE_DEVICES=)."
            )
        if config.on == "gpu" and kind == DDP and gpus() == 0:
            raise ConfigError(
                f"{launch} asks for GPUs, and there is no GPU here. Set distributed_type: "
                "MULTI_CPU and use_cpu: true, or use --launch ddp."
            )
    if processes is None or processes < 2:
        raise ConfigError(f"--launch {launch} needs --processes N with N of 2 or more.")
    _refuse_sharing(kind, f"--launch {launch}", processes)
    _refuse_too_few_gpus(on_each(processes, place))
    return Launch(processes, None if kind == DDP else kind, settings, place)


def _place_of(config: Asked, file: str, rank: int | None, address: str | None) -> Place | None:
    """Return which of a config's machines this is; options go before the config."""
    if config.machines == 1:
        if rank is not None or address is not None:
            raise ConfigError(
                f"--machine-rank and --main-process-ip are for several machines, and {file} has "
                "one. Set num_machines there, or leave them out."
            )
        return None
    rank = config.machine_rank if rank is None else rank
    address = address or config.address
    if not 0 <= rank < config.machines:
        raise ConfigError(
            f"The machine rank is {rank}, and {file} has {config.machines} machines, counted from "
            "0. Give each of them its own (--machine-rank N)."
        )
    if address is None:
        raise ConfigError(
            f"{file} has {config.machines} machines, and does not say where the first one is. Set "
            "main_process_ip there, or --main-process-ip, to its name or address."
        )
    if not is_host(address):
        raise ConfigError(
            f"The first machine's address is {brief(address)}, which is not a name or an IP "
            "address alone. Its port is main_process_port."
        )
    return Place(config.machines, rank, address, config.port)


def on_each(processes: int, place: Place | None) -> int:
    """Return how many of the processes run on each machine."""
    if place is None:
        return processes
    if processes % place.machines:
        raise ConfigError(
            f"{processes} processes cannot be shared evenly by {place.machines} machines. Set a "
            f"multiple of {place.machines}."
        )
    return processes // place.machines


def adopt_launcher(kind: str | None = None) -> tuple[int, Launch]:
    """Return which of a launcher's processes this is, and what the launcher asks for.

    0 and a single process without one. On several machines the first process of each is 0.
    ``kind``: how processes share the weights, where an option says it. The launcher's variables are
    removed, so that what this process starts is not taken for one of the launcher's. Raises
    `ConfigError` for a launch that would train copies, or something other than it says.
    """
    rank, processes = (int(os.environ.get(name, value)) for name, value in _ALONE.items())
    config = asked_by_accelerate(os.environ)
    if kind is not None and config.kind not in (DDP, kind):
        raise ConfigError(
            f"The launcher's config asks for {config.kind}, and --launch {kind} for something "
            "else. Leave --launch out, or take a config without it."
        )
    kind = kind or config.kind
    _refuse_sharing(kind, "The launch", processes)
    place = _place_among(processes)
    if place is not None:
        rank = int(os.environ["LOCAL_RANK"])
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
    if processes == 1:
        return rank, Launch()
    _refuse_too_few_gpus(on_each(processes, place))
    return rank, Launch(processes, None if kind == DDP else kind, config.settings, place)


def _place_among(processes: int) -> Place | None:
    """Return which of a launcher's machines this is; None where there is one."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if here == processes:
        return None
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if processes % here or (rank - local) % here:
        raise ConfigError(
            f"A launcher started {processes} processes, of which {here} on this machine. Start "
            "as many on each."
        )
    key = None
    if _is_set("TORCHELASTIC_USE_AGENT_STORE"):  # or nobody is at that port yet
        key = f"plumbline/port/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return Place(
        processes // here,
        rank // here,
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        key,
    )


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


@contextmanager
def meeting_point(processes: int) -> Iterator[int]:
    """Hold the store by which the processes of a stage find each other; yield its port.

    It is held here, before they start. The first of them would listen there seconds later, and
    another program may have taken meanwhile what was a free port.
    """
    if processes == 1:
        yield 0
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield store.port


def environments(
    processes: int, sharding: str | None, place: Place | None, port: int
) -> list[dict[str, str]]:
    """Return the variables by which the processes of a stage find each other.

    For each process on this machine. ``sharding``: how they share its weights. ``port``: that of
    their `meeting_point`, which the first machine has; all machines have the same.
    """
    if processes == 1:
        return [{}]
    own = on_each(processes, place)
    before = 0 if place is None else own * place.number
    shared = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(own),
        "MASTER_ADDR": "127.0.0.1" if place is None else place.address,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # none of them is to listen there
        "OMP_NUM_THREADS": str(threads_of_each(own) or 1),  # or accelerate would choose
        # Without it accelerate makes each process a training of its own where there is no GPU.
        "ACCELERATE_USE_CPU": str(gpus() == 0),
        **({} if sharding is None else {SHARDING: sharding}),
    }
    return [{**shared, "RANK": str(before + n), "LOCAL_RANK": str(n)} for n in range(own)]


def this_process(environment: Mapping[str, str]) -> int:
    """Return which process of a stage this is, after its variables; take its GPU."""
    if "RANK" not in environment:
        return 0
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))  # where models are loaded
    return int(environment["RANK"])


def threads_of_each(processes: int) -> int | None:
    """Return how many threads each process computes with; None leaves it to the libraries."""
    return None if processes == 1 else max(1, (os.cpu_count() or 1) // processes)


#: Processes of a training on a core, at most: more are surely a mistake.
_MOST_ON_A_CORE = 8
_ALONE = {"RANK": "0", "WORLD_SIZE": "1"}


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("true", "1")


def _refuse_sharing(kind: str, what: str, processes: int) -> None:
    """Raise `ConfigError` for shares without GPUs, or without the package that they need."""
    if kind != DDP and gpus() == 0:
        raise ConfigError(
            f"{what} asks for {kind}, where GPUs share a training's memory, and there is no GPU "
            f"here. Use --launch ddp --processes {max(processes, 2)}, with a whole copy of the "
            "model in each process."
        )
    if SHARDINGS[kind].zero_stage:
        check_deepspeed(f"{what} asks for {kind}, which")


def _refuse_too_few_gpus(processes: int) -> None:
    count = gpus()
    if 0 < count < processes:
        raise ConfigError(
            f"{processes} processes are asked for, and there are {count} GPUs; each needs one. Set "
            "fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU."
        )
    cores = os.cpu_count() or 1
    if count == 0 and processes > _MOST_ON_A_CORE * cores:
        raise ConfigError(
            f"{processes} processes are asked for on this machine, and it has {cores} cores and no "
            f"GPU. Each process has a whole model. Set {cores} or fewer."
        )


def gpus() -> int:
    """Return how many GPUs there are."""
    import torch

    return torch.cuda.device_count()
