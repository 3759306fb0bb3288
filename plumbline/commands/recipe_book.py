"""Finding recipes and their configs, and running one."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock, Timeout

from plumbline.config import Config, load, to_yaml
from plumbline.errors import BusyError, ConfigError, PlumblineError, brief
from plumbline.runs import launch
from plumbline.runs.forecast import forecast
from plumbline.runs.names import check_run_name, safe_file_name
from plumbline.runs.nodes import Nodes
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run, flat_settings
from plumbline.runs.run_file import RUN_FILE
from plumbline.training.trackers import check_trackers

PACKAGE = "recipes"


@dataclass(frozen=True)
class Recipe:
    """A recipe script: a module with ``CONFIG`` (a `Config`) and ``main(run, config)``."""

    name: str
    path: Path

    @property
    def summary(self) -> str:
        """The first line of its docstring; read without importing it."""
        text = ast.get_docstring(ast.parse(self.path.read_text(encoding="utf-8"))) or ""
        return text.partition("\n")[0]

    @property
    def configs(self) -> dict[str, Path]:
        """Its configs by name: files in `configs/` whose first line names this recipe."""
        configs = {}
        for path in sorted((self.path.parent / "configs").glob("*.yaml")):
            first_line = path.read_text(encoding="utf-8").partition("\n")[0]
            if first_line.strip() == f"# recipe: {self.name}":
                configs[path.stem] = path
        return configs

    def module(self) -> ModuleType:
        """Import it."""
        if self.path.parent == _folder():
            return importlib.import_module(f"{PACKAGE}.{self.name}")
        spec = importlib.util.spec_from_file_location(self.name, self.path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{self.path} is not a Python file.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[self.name] = module
        spec.loader.exec_module(module)
        return module

    def load(self, config: str | None, overrides: Sequence[str]) -> Config:
        """Read its config: by name, by path, or the defaults."""
        return load(self.schema(), self.config_path(config), overrides)

    def config_path(self, config: str | None) -> Path | None:
        """Return the path of a config given by name or path."""
        if config is None:
            return None
        if config in self.configs:
            return self.configs[config]
        if Path(config).is_file():
            return Path(config)
        names = ", ".join(self.configs) or "none"
        raise ConfigError(
            f"There is no config {config!r}: neither a file nor one of those that come with "
            f"{self.name} ({names})."
        )

    def short_names(self) -> dict[str, str]:
        """Return short names of settings, where the recipe has any."""
        return dict(getattr(self.module(), "SHORT", {}))

    @property
    def essential(self) -> tuple[str, ...]:
        """The settings that people set most, where the recipe names them."""
        return tuple(getattr(self.module(), "ESSENTIAL", ()))

    def main(self) -> Callable[[Run, Any], dict[str, Any]]:
        """Return its main function."""
        function: Callable[[Run, Any], dict[str, Any]] = self._attribute("main")
        return function

    def schema(self) -> type[Config]:
        """Return the class of its config."""
        schema: type[Config] = self._attribute("CONFIG")
        return schema

    def _attribute(self, name: str) -> Any:
        try:
            return getattr(self.module(), name)
        except AttributeError:
            raise ConfigError(
                f"{self.path} is not a recipe: it has no {name!r}. A recipe has CONFIG, a "
                "plumbline.config.Config, and main(run, config)."
            ) from None


def all_recipes() -> list[Recipe]:
    """Return the recipes that come with Plumbline."""
    return [
        Recipe(path.stem, path)
        for path in sorted(_folder().glob("*.py"))
        if not path.stem.startswith("_")
    ]


def find(name_or_path: str) -> Recipe:
    """Return a recipe by name, or by the path of its script."""
    for recipe in all_recipes():
        if name_or_path == recipe.name:
            return recipe
    path = Path(name_or_path)
    if path.suffix == ".py" and path.is_file():
        return Recipe(path.stem, path.resolve())
    names = ", ".join(recipe.name for recipe in all_recipes())
    raise ConfigError(f"There is no recipe {name_or_path!r}. Recipes are: {names}, or a path.")


def as_overrides(arguments: Sequence[str]) -> list[str]:
    """Return settings given as options (``--seed 1``, ``--seed=1``, ``--simulate``) as key=value.

    A setting without a value is switched on. Raises `ConfigError` for a value without an option.
    """
    overrides: list[str] = []
    key: str | None = None
    for argument in arguments:
        if argument.startswith("--"):
            if key is not None:
                overrides.append(f"{key}=true")
            key, equals, value = argument[2:].partition("=")
            key = key.replace("-", "_")
            if equals:
                overrides.append(f"{key}={value}")
                key = None
        elif key is None:
            raise ConfigError(
                f"{argument!r} belongs to no option. A setting is given as --key VALUE, and a "
                "value with spaces in quotes."
            )
        else:
            overrides.append(f"{key}={argument}")
            key = None
    return [*overrides, f"{key}=true"] if key is not None else overrides


def from_short_names(recipe: Recipe, values: Mapping[str, Any]) -> list[str]:
    """Return values by their short names (``lr``, ``lora_rank``) as key=value.

    A recipe's ``SHORT`` says which setting each is. A rank means an adapter, whose alpha is twice
    the rank where no other is given, so that the learning rate keeps its meaning. Columns are
    ``part=column,…`` or a mapping, and trackers may be a text with commas.
    """
    short = recipe.short_names()
    values = dict(values)
    if "lora_rank" in values:
        adapter: dict[str, Any] = {"tuning": "lora", "lora_alpha": 2 * int(values["lora_rank"])}
        values = adapter | values
    if isinstance(values.get("columns"), str):
        parts = [pair.partition("=") for pair in values["columns"].split(",")]
        if not all(part and column for part, _, column in parts):
            raise ConfigError(
                f"--columns {brief(values['columns'])} does not read part=column,…, like "
                "prompt=question,chosen=better."
            )
        values["columns"] = {part.strip(): column.strip() for part, _, column in parts}
    if isinstance(values.get("report_to"), str):
        values["report_to"] = [name.strip() for name in values["report_to"].split(",")]
    return [
        f"{short.get(name, name)}={json.dumps(value, default=str)}"
        for name, value in values.items()
    ]


def execute(
    recipe: Recipe,
    config_name: str | None,
    overrides: Sequence[str],
    home: Path,
    reporter: Reporter,
    name: str | None = None,
    *,
    processes: int = 1,
    sharding: str | None = None,
    parallel: int = 1,
    on: str | None = None,
    nodes: Nodes | None = None,
    launch_settings: Mapping[str, object] | None = None,
) -> Run:
    """Run a recipe to its end. The same arguments resume an earlier attempt.

    ``processes``: how many share each training; a recipe with one that cannot be shared is refused.
    ``sharding``: how they share its weights, null where each has a whole copy.
    ``parallel``: how many stages at once. ``on``: the Ray cluster that they run on. ``nodes``:
    other machines that take part. ``launch_settings``: what an accelerate config asks of them.
    """
    from plumbline.training.preflight import check_launch, check_run

    _refuse_untrainable(recipe, processes, sharding)
    config = recipe.load(config_name, overrides)
    check_launch(config, launch_settings or {})
    check_trackers(config)
    name = name or run_name(recipe, config_name, overrides, config)
    if not (home / name / RUN_FILE).is_file():
        check_run_name(name)
    (home / name).mkdir(parents=True, exist_ok=True)
    with _alone(home, name):
        run = Run(
            home,
            name,
            recipe.name,
            config,
            reporter,
            before_work=partial(check_run, config, home),
            processes=processes,
            sharding=sharding,
            parallel=parallel,
            on=on,
            nodes=nodes,
        )
        _say_how_long(run, recipe.name, config, reporter)
        _allow_code(config)
        try:
            run.finish(recipe.main()(run, config))
        except KeyboardInterrupt:
            with _without_interruption():  # a second ctrl-C would leave the run as "running"
                run.fail("interrupted", "interrupted from the keyboard")
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, PlumblineError) else repr(error)
            with suppress(OSError):  # where the disk is full, the first error is the one to show
                run.fail("failed", reason)
            raise
    return run


def _alone(home: Path, name: str) -> AbstractContextManager[object]:
    """Return the lock of a run, held; raise `BusyError` where another process has it."""
    try:
        return FileLock(home / f".{name}.lock").acquire(timeout=0)
    except Timeout:
        raise BusyError(
            f"Run {name!r} in {home} is running in another process. Wait for it, or give "
            "this one another name with --name."
        ) from None


def _refuse_untrainable(recipe: Recipe, processes: int, sharding: str | None) -> None:
    """Raise `ConfigError` before anything runs, where a recipe cannot use several processes."""
    if processes == 1:
        return
    stages = [value for value in vars(recipe.module()).values() if hasattr(value, "trains_in")]
    launch.refuse_untrainable(stages, processes)
    launch.refuse_unshared_weights(stages, sharding)
    if not any(map(launch.is_shared, stages)):
        raise ConfigError(
            f"{recipe.name} has no stage that several processes share, so they would have no "
            f"effect. "
            f"{launch.WORKS}."
        )


def _say_how_long(run: Run, recipe: str, config: Config, reporter: Reporter) -> None:
    """Say how long the run will take, as far as an earlier one tells."""
    settings = flat_settings(config.model_dump(mode="json"))
    expected = forecast(run.home, recipe, settings)
    if expected is None:
        sentences = ["No earlier run of this recipe here shows how long it takes; each stage shows "
                     "its time left once it has begun."]  # fmt: skip
    else:
        sentences = expected.sentences()
        run.expect(expected.left)
    for sentence in sentences:
        reporter.say(f"[dim]  {sentence}[/dim]")


@contextmanager
def _without_interruption() -> Iterator[None]:
    """Let ctrl-C wait until the block is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _allow_code(config: Config) -> None:
    """Let the Python of a base model run if this command's config says so."""
    from plumbline.training.base_model import BaseModelConfig, allow_code_of

    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModelConfig):
            allow_code_of(value)
        elif isinstance(value, Config):
            _allow_code(value)


def run_name(
    recipe: Recipe, config_name: str | None, overrides: Sequence[str], config: Config
) -> str:
    """Return the name of a run: recipe, config and, with overrides, a digest of all settings."""
    stem = Path(config_name).stem if config_name is not None else "defaults"
    if not overrides:
        return safe_file_name(f"{recipe.name}-{stem}")
    digest = hashlib.sha256(to_yaml(config).encode()).hexdigest()[:6]
    return safe_file_name(f"{recipe.name}-{stem}-{digest}")


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])
