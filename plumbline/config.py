"""Settings: declared, documented and checked in one place, then written beside what they made.

A stage declares its knobs as a `Config`; a recipe's config is a `Config` of those. Values come
from a YAML file, then from ``--set key.path=value``. Whatever is wrong with them is reported all
at once, with file, line, key, value and the nearest right key, before anything is computed.
"""

from __future__ import annotations

import difflib
import io
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError

from plumbline.errors import ConfigError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """The base of every config: unknown keys are refused, values are fixed once read.

    A docstring under a field is its documentation. A field declared with `without_effect` does
    not change what a stage makes (a batch size for scoring, say) and so does not make it anew.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, as JSON types."""
        values = self.model_dump(mode="json")
        for name, info in type(self).model_fields.items():
            if _is_without_effect(info):
                del values[name]
            elif isinstance(child := getattr(self, name), Config):
                values[name] = child.identity()
        return values


def _spelled_out(value: Any) -> Any:
    """Return the numbers that a text such as ``0-4`` or ``0,2,5-7`` stands for."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    found: list[int] = []
    for part in value.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
            raise ValueError(f"{value!r} reads neither like 0-4 nor like 0,2,5-7 nor like a list")
        found += range(int(low), int(high or low) + 1)
    return tuple(found)


def _once_each(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or min(value) < 0 or len(set(value)) < len(value):
        raise ValueError(f"{list(value)} must be different seeds, each 0 or more, and at least one")
    return value


#: Training seeds: a list, one number, or a text such as ``0-4``.
Seeds = Annotated[tuple[int, ...], BeforeValidator(_spelled_out), AfterValidator(_once_each)]


def without_effect(default: Any, **constraints: Any) -> Any:
    """Declare a field that changes how a result is made, but not the result."""
    return Field(default, json_schema_extra={"without_effect": True}, **constraints)


def _is_without_effect(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("without_effect"))


def load(schema: type[C], path: Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Read a config from YAML and ``key.path=value`` overrides.

    Raises `ConfigError` that lists every problem at once.
    """
    data = _read_yaml(path) if path is not None else CommentedMap()
    origins = [_apply_override(data, override) for override in overrides]
    try:
        # Through JSON, so that strictness holds ("3" is no number) and paths and enums still read.
        values = json.dumps(_over_defaults(schema, data), default=str)
        return schema.model_validate_json(values, strict=True)
    except ValidationError as error:
        source = str(path) if path is not None else "the settings"
        problems = [
            _explain(schema, data, problem, source, origins)
            for problem in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(problems)) from None


def _over_defaults(schema: type[Config], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what is given over the defaults of the place where it stands.

    A stage may set other defaults for a shared config than the shared class does (its learning
    rate, say); setting one more key there must not bring the class's own back.
    """
    values = dict(given)
    for name, info in schema.model_fields.items():
        default = info.get_default(call_default_factory=True)
        if isinstance(default, Config) and isinstance(given.get(name), Mapping):
            values[name] = _over(default, given[name])
    return values


def _over(default: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = default.model_dump(mode="json")
    for name, value in given.items():
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
        return type(config).model_validate_json(values, strict=True)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                _explain(type(config), data, problem, "the changes", [])
                for problem in error.errors(include_url=False)
            )
        ) from None


def to_yaml(config: Config) -> str:
    """Return a config as YAML, every value written out."""
    stream = io.StringIO()
    yaml = YAML()
    yaml.dump(config.model_dump(mode="json"), stream)
    return stream.getvalue()


@dataclass(frozen=True)
class Knob:
    """One setting, for people to read."""

    key: str
    type: str
    value: Any
    default: Any
    documentation: str


def knobs(config: Config, prefix: str = "") -> Iterator[Knob]:
    """Yield every knob of a config with its documentation, in the order of declaration."""
    for name, info in type(config).model_fields.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, Config):
            yield from knobs(value, prefix=f"{key}.")
            continue
        default = info.get_default(call_default_factory=True)
        yield Knob(
            key=key,
            type=_type_name(info.annotation) + _bounds(info),
            value=value,
            default="(required)" if default is PydanticUndefined else default,
            documentation=" ".join((info.description or "").split()),
        )


def _read_yaml(path: Path) -> CommentedMap:
    if not path.exists():
        raise ConfigError(f"There is no config file {path}.")
    try:
        data = YAML().load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{where}: this is not valid YAML: {error.problem}.") from None
    if data is None:
        return CommentedMap()
    if not isinstance(data, CommentedMap):
        raise ConfigError(f"{path} holds {type(data).__name__}, but a config is keys and values.")
    return data


def _apply_override(data: CommentedMap, override: str) -> tuple[str, ...]:
    """Put one ``key.path=value`` into ``data`` and return its path."""
    key, separator, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not separator or not all(path):
        raise ConfigError(
            f"--set {override!r} does not read key=value, like ppo.learning_rate=1e-5."
        )
    try:
        value = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        raise ConfigError(
            f"--set {override!r}: the value is not valid YAML: {error.problem}."
        ) from None
    node: Any = data
    for depth, part in enumerate(path[:-1], 1):
        child = node.get(part)
        if child is None:
            child = node[part] = CommentedMap()
        if not isinstance(child, dict):
            raise ConfigError(
                f"--set {override!r}: {'.'.join(path[:depth])} is {child!r}, "
                "which has no settings of its own."
            )
        node = child
    node[path[-1]] = value
    return path


def _explain(
    schema: type[Config],
    data: CommentedMap,
    problem: Any,
    source: str,
    origins: Sequence[tuple[str, ...]],
) -> str:
    """Say what is wrong, where, and what would be right."""
    loc = tuple(problem["loc"])
    # A union reports one problem a member; its own names are no keys of the file.
    path = tuple(str(part) for part in loc if not _is_union_tag(part))
    key = ".".join(path) or "the config"
    where = _where(data, path, source, origins)
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{where}: there is no setting {key!r} (set to {value!r}). {_suggest(schema, path)}"
    if kind == "missing":
        return f"{where}: {key!r} must be set. {_documentation(schema, path)}".rstrip()
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {key}: {message}."
    return f"{where}: {key} is {value!r}, but it {message}. {_documentation(schema, path)}".rstrip()


def _is_union_tag(part: object) -> bool:
    return isinstance(part, str) and (part[:1].isupper() or "[" in part or part == "none")


def _where(
    data: CommentedMap, path: tuple[str, ...], source: str, origins: Sequence[tuple[str, ...]]
) -> str:
    if any(origin[: len(path)] == path or path[: len(origin)] == origin for origin in origins):
        return "--set"
    node: Any = data
    line = None
    for part in path:
        if not isinstance(node, CommentedMap) or part not in node:
            break
        if part in (node.lc.data or {}):  # what no file says has no line
            line = node.lc.key(part)[0] + 1
        node = node[part]
    return source if line is None else f"{source}, line {line}"


def _fields(schema: Any, path: Sequence[str]) -> Mapping[str, FieldInfo]:
    """Return the fields that may stand under ``path``."""
    for part in path:
        info = getattr(schema, "model_fields", {}).get(part)
        schema = None if info is None else _config_in(info.annotation)
    return getattr(schema, "model_fields", {})


def _config_in(annotation: Any) -> type[Config] | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def _all_keys(schema: type[Config], prefix: str = "") -> Iterator[str]:
    for name, info in schema.model_fields.items():
        yield prefix + name
        child = _config_in(info.annotation)
        if child is not None:
            yield from _all_keys(child, f"{prefix}{name}.")


def _suggest(schema: type[Config], path: tuple[str, ...]) -> str:
    siblings = list(_fields(schema, path[:-1]))
    everywhere = list(_all_keys(schema))
    close = [
        ".".join((*path[:-1], name))
        for name in difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.6)
    ]
    if not close:  # the right key at the wrong place
        close = [key for key in everywhere if key.rsplit(".", 1)[-1] == path[-1]][:3]
    if not close:
        close = difflib.get_close_matches(".".join(path), everywhere, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    names = ", ".join(siblings)
    return f"Settings here are: {names}." if names else "Nothing can be set here."


def _documentation(schema: type[Config], path: tuple[str, ...]) -> str:
    if not path:
        return ""
    info = _fields(schema, path[:-1]).get(path[-1])
    text = " ".join((info.description or "").split()) if info is not None else ""
    return f"({text})" if text else ""


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " | ".join(str(value) for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "null"
    if origin is not None:
        inner = ", ".join(_type_name(a) for a in typing.get_args(annotation) if a is not Ellipsis)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(info: FieldInfo) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [
        f"{sign} {getattr(bound, name)}"
        for bound in info.metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""
