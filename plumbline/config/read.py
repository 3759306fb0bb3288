"""Reading settings: defaults, then a YAML file, then ``--set key.path=value``."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from plumbline.config.declare import Config, ineffective
from plumbline.config.explain import config_in, explain, where
from plumbline.config.yaml_text import parse_yaml, read_yaml
from plumbline.errors import ConfigError, brief

C = TypeVar("C", bound=Config)


def load(schema: type[C], path: Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Read a config from YAML and ``key.path=value`` overrides.

    An override decides: what the file sets and loses its effect by one has its default again.
    Raises `ConfigError` that lists every problem at once.
    """
    data = read_yaml(path) if path is not None else CommentedMap()
    source = str(path) if path is not None else "the settings"
    in_file = copy.deepcopy(data)
    origins = [_apply_override(data, override) for override in overrides]
    config = _validated(schema, data, source, origins)
    if overrides and path is not None:
        lost = [place for place, _ in ineffective(config, schema, data) if place not in origins]
        for place in _effective_in(schema, in_file, lost):
            _remove(data, place)
        config = _validated(schema, data, source, origins)
    _refuse_ineffective(config, schema, data, source, origins)
    return config


def _validated(
    schema: type[C], data: CommentedMap, source: str, origins: Sequence[tuple[str, ...]]
) -> C:
    try:
        # Through JSON: strict ("3" is not a number), and paths and enums are still read.
        values = json.dumps(_over_defaults(schema, data), default=str)
        return schema.model_validate_json(values, strict=True, context=_LOADING)
    except ValidationError as error:
        problems = [
            explain(schema, data, problem, source, origins)
            for problem in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(problems)) from None


def _effective_in(
    schema: type[Config], in_file: CommentedMap, places: Sequence[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """Return those of some settings that the file's own values do not leave without effect."""
    try:
        alone = _validated(schema, in_file, "", [])
    except ConfigError:  # it needs the overrides to be whole
        return list(places)
    without = {place for place, _ in ineffective(alone, schema, in_file)}
    return [place for place in places if place not in without]


def _remove(data: CommentedMap, place: tuple[str, ...]) -> None:
    node: Any = data
    for part in place[:-1]:
        node = node[part]
    del node[place[-1]]


#: Given to pydantic by `load`: every field is set then, and only `load` knows which were given.
_LOADING = {"loading": True}


def _refuse_ineffective(
    config: Config,
    defaults: Config | type[Config],
    data: CommentedMap,
    source: str,
    origins: Sequence[tuple[str, ...]],
) -> None:
    problems = [
        f"{where(data, path, source, origins)}: {text}."
        for path, text in ineffective(config, defaults, data)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _over_defaults(schema: type[Config], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings over the defaults of their place in the config.

    A stage may give a shared config other defaults than its class does (its learning rate, for
    example). Setting one more key there must not restore the defaults of the class.
    """
    values = dict(settings)
    for name, info in schema.model_fields.items():
        default = info.get_default(call_default_factory=True)
        value, below = settings.get(name), config_in(info.annotation)
        if isinstance(default, Config) and isinstance(value, Mapping):
            values[name] = _over(default, value)
        elif below is not None and isinstance(value, Mapping):
            values[name] = _over_defaults(below, value)
        elif name not in settings and isinstance(default, Path):
            values[name] = str(default)  # JSON has no paths, and a strict reader takes text alone
    return values


def _over(default: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = default.model_dump(mode="json")
    for name, value in settings.items():
        child = getattr(default, name, None)
        if isinstance(child, Config) and isinstance(value, Mapping):
            value = _over(child, value)
        values[name] = value
    return values


def changed(config: C, changes: Mapping[str, Any]) -> C:
    """Return a config with some settings changed, as nested keys and values.

    Raises `ConfigError` that lists every problem at once.
    """
    data = CommentedMap(changes)
    try:
        values = json.dumps(_over(config, data), default=str)
        result = type(config).model_validate_json(values, strict=True, context=_LOADING)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                explain(type(config), data, problem, "the changes", [])
                for problem in error.errors(include_url=False)
            )
        ) from None
    _refuse_ineffective(result, config, data, "the changes", [])
    return result


def to_yaml(config: Config) -> str:
    """Return a config as YAML, every value written out."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


def _apply_override(data: CommentedMap, override: str) -> tuple[str, ...]:
    """Put one ``key.path=value`` into ``data`` and return its path."""
    key, separator, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise ConfigError(
            f"--set {brief(override)} does not read key=value, like ppo.learning_rate=1e-5."
        )
    value = parse_yaml(text, f"--set {brief(override)}")
    node: Any = data
    for depth, part in enumerate(path[:-1], 1):
        child = node.get(part)
        if child is None:
            child = node[part] = CommentedMap()
        if not isinstance(child, dict):
            raise ConfigError(
                f"--set {brief(override)}: {'.'.join(path[:depth])} is {child!r}, "
                "which has no settings of its own."
            )
        node = child
    node[path[-1]] = value
    return path
