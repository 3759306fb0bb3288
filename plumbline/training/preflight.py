"""What is tried before the first stage of a run: models, files, packages, room on the disk.

A run of hours must not end in its last stage over a package that is not installed. Configs name
what to try (`Config.checks`); it is done in a process of its own, once, and only where a stage
is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from plumbline.config import Check, Config
from plumbline.errors import ConfigError, PlumblineError
from plumbline.lm.gguf_file import is_gguf
from plumbline.lm.model_size import model_size
from plumbline.lm.precision import computes_in_bfloat16
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.accelerate_configs import check_settings
from plumbline.runs.isolation import run_isolated
from plumbline.runs.progress import Reporter, size
from plumbline.temporary import TemporaryFolder
from plumbline.training.base_model import EMBEDDED, BaseModelConfig
from plumbline.training.config import TrainingConfig

if TYPE_CHECKING:
    from plumbline.runs.stage import Stage

#: Room for what stages write besides models: datasets, samples, reports.
_SMALL = 200 << 20


def check_run(config: Config, home: Path) -> None:
    """Raise `PlumblineError` that says everything that would end the run, before any work."""
    problems = list(_failures([partial(check_room, config, home)]))
    checks = [check for part in configs_in(config) for check in part.checks_before_work()]
    if checks:
        with TemporaryFolder() as folder:
            try:
                run_isolated(_try, folder, {"checks": checks}, Reporter(quiet=True), lambda: None)
            except PlumblineError as error:
                problems.append(error)
    _raise(problems)


def configs_in(config: Config) -> Iterator[Config]:
    """Yield a config and all within it."""
    yield config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from configs_in(value)


def check_launch(config: Config, wanted: Mapping[str, object]) -> None:
    """Raise `ConfigError` where trainings are set otherwise than a launcher's config asks."""
    check_settings(wanted, settings_of_trainings(config))


def settings_of_trainings(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings of trainings that a launcher's config may contradict, by their whole names.

    A number format is given as whether it means bfloat16 on this machine.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if "max_grad_norm" in type(config).model_fields:
        if isinstance(config, TrainingConfig):
            yield f"{prefix}bf16", config.computes_in_bfloat16
            yield f"{prefix}gradient_accumulation", config.gradient_accumulation
        elif hasattr(config, "precision"):
            yield f"{prefix}precision", computes_in_bfloat16(config.precision, device)
        yield f"{prefix}max_grad_norm", config.max_grad_norm  # type: ignore[attr-defined]
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from settings_of_trainings(value, f"{prefix}{name}.")


def check_room(config: Config, home: Path) -> None:
    """Refuse a disk without room for the models that the run fetches and keeps.

    A stage that trains every weight keeps them in float32; while it trains, a checkpoint holds
    them with two moments each. A model of the hub is kept in the hub's cache, and a GGUF file
    is unpacked into the run's home.
    """
    names = {part.name_or_path for part in _distinct(config, BaseModelConfig)} - {EMBEDDED}
    sizes = {name: model_size(name) for name in names}
    known = {name: model for name, model in sizes.items() if model is not None}
    weights = sum(model.float32_bytes for model in known.values())
    unpacked = sum(model.float32_bytes for name, model in known.items() if is_gguf(name))
    whole = sum(not part.has_adapter for part in _distinct(config, TuningConfig))
    _check_download(sum(model.to_fetch for model in known.values()))
    needed = _SMALL + unpacked + (weights * (whole + 3) if whole else 0)
    free = _free(home)
    if free < needed:
        lora = ", or set tuning.method: lora, which keeps adapters alone" if whole else ""
        raise ConfigError(
            f"{home} has {size(free)} free, and this run needs about {size(needed)}: {whole} "
            f"stages keep a whole model. Free some room, give --home on a larger disk{lora}."
        )


def _check_download(to_fetch: int) -> None:
    """Refuse a cache of the hub without room for what has to be downloaded."""
    if not to_fetch:
        return
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    if (free := _free(cache)) < to_fetch:
        raise ConfigError(
            f"The base model is {size(to_fetch)} to download, and the hub's cache {cache} has "
            f"{size(free)} free. Free some room, or set HF_HOME to a folder on a larger disk."
        )


def _free(folder: Path) -> int:
    """Return the bytes that are free where a folder is or will be."""
    whole = folder.resolve()
    return shutil.disk_usage(next(f for f in (whole, *whole.parents) if f.exists())).free


C = TypeVar("C", bound=Config)


def _distinct(config: Config, kind: type[C]) -> list[C]:
    return [part for part in configs_in(config) if isinstance(part, kind)]


def _try(stage: Stage, *, checks: Sequence[Check]) -> Mapping[str, float | None]:
    """Do the checks; a stage's function, since that is what runs in a process of its own."""
    _raise(list(_failures(checks)))
    return {}


def _failures(checks: Sequence[Check]) -> Iterator[PlumblineError]:
    reported = set()
    for check in checks:
        try:
            check()
        except PlumblineError as error:
            if str(error) not in reported:  # two stages that need the same package
                reported.add(str(error))
                yield error


def _raise(problems: Sequence[PlumblineError]) -> None:
    """Raise one error with all that was found."""
    if problems:
        kinds = {type(problem) for problem in problems}
        kind = kinds.pop() if len(kinds) == 1 else ConfigError
        raise kind("\n".join(str(problem) for problem in problems))
