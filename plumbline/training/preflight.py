"""What is tried before the first stage of a run: models, files, packages, room on the disk.

A run of hours must not end in its last stage over a package that is not installed. Configs name
what to try (`Config.checks`); it is done in a process of its own, once, and only where a stage
is missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from plumbline.config import Check, Config
from plumbline.errors import ConfigError, PlumblineError
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import read_json
from plumbline.runs.isolation import run_isolated
from plumbline.runs.progress import Reporter, size
from plumbline.training.base_model import BaseModelConfig

if TYPE_CHECKING:
    from plumbline.runs.stage import Stage

#: Room for what stages write besides models: datasets, samples, reports.
_SMALL = 200 << 20


def check_run(config: Config, home: Path) -> None:
    """Raise `PlumblineError` that says everything that would end the run, before any work."""
    problems = list(_failures([partial(check_room, config, home)]))
    checks = [check for part in configs_in(config) for check in part.checks_before_work()]
    if checks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                run_isolated(
                    _try, Path(folder), {"checks": checks}, Reporter(quiet=True), lambda: None
                )
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


def check_room(config: Config, home: Path) -> None:
    """Refuse a disk without room for the models that the run keeps.

    A stage that trains every weight keeps them in float32; while it trains, a checkpoint holds
    them with two moments each.
    """
    weights = sum(_float32_bytes(part) for part in _distinct(config, BaseModelConfig))
    whole = sum(not part.has_adapter for part in _distinct(config, TuningConfig))
    needed = _SMALL + (weights * (whole + 3) if whole else 0)
    place = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ConfigError(
            f"{home} has {size(free)} free, and this run needs about {size(needed)}: {whole} "
            "stages keep a whole model. Free some room, give --home on a larger disk, or set "
            "tuning.method: lora, which keeps adapters alone."
        )


C = TypeVar("C", bound=Config)


def _distinct(config: Config, kind: type[C]) -> list[C]:
    return [part for part in configs_in(config) if isinstance(part, kind)]


def _float32_bytes(base: BaseModelConfig) -> int:
    """Return the size of a local model's weights in float32; 0 where it is not known yet."""
    folder = Path(base.name_or_path).expanduser()
    if not (folder / "config.json").is_file():
        return 0
    config = read_json(folder / "config.json")
    dtype = config.get("dtype") or config.get("torch_dtype")
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return stored * (2 if dtype in ("bfloat16", "float16") else 1)


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
