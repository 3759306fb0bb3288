"""Messages about wrong settings: what is wrong, in which file and line, and what would be right."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from ruamel.yaml.comments import CommentedMap

from plumbline.config.declare import Config
from plumbline.errors import brief


def explain(
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
    place = where(data, path, source, origins)
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        new = _new_name(schema, path)
        if new is not None:
            return f"{place}: {key!r} is now called {new!r} (set to {brief(value)}). Rename it."
        hint = _suggest(schema, path)
        return f"{place}: there is no setting {key!r} (set to {brief(value)}). {hint}"
    if kind == "missing":
        return f"{place}: {key!r} must be set. {_documentation(schema, path)}".rstrip()
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    if kind in ("value_error", "assertion_error"):
        return f"{place}: {key}: {message}."
    documentation = _documentation(schema, path)
    return f"{place}: {key} is {brief(value)}, but it {message}. {documentation}".rstrip()


def _is_union_tag(part: object) -> bool:
    return isinstance(part, str) and (part[:1].isupper() or "[" in part or part == "none")


def where(
    data: CommentedMap, path: tuple[str, ...], source: str, origins: Sequence[tuple[str, ...]]
) -> str:
    """Return where a setting was set: ``--set``, or file and line."""
    if any(origin[: len(path)] == path or path[: len(origin)] == origin for origin in origins):
        return "--set"
    node: Any = data
    line = None
    for part in path:
        if not isinstance(node, CommentedMap) or part not in node:
            break
        if part in (node.lc.data or {}):  # only what a file sets has a line
            line = node.lc.key(part)[0] + 1
        node = node[part]
    return source if line is None else f"{source}, line {line}"


def _schema_at(schema: Any, path: Sequence[str]) -> Any:
    """Return the config that stands under ``path``, or None."""
    for part in path:
        info = getattr(schema, "model_fields", {}).get(part)
        schema = None if info is None else config_in(info.annotation)
    return schema


def _fields(schema: Any, path: Sequence[str]) -> Mapping[str, FieldInfo]:
    """Return the fields that may stand under ``path``."""
    return getattr(_schema_at(schema, path), "model_fields", {})


def _new_name(schema: Any, path: tuple[str, ...]) -> str | None:
    """Return the whole new name of a setting that was renamed."""
    for depth in range(len(path) - 1, -1, -1):
        names: Mapping[str, str] = getattr(_schema_at(schema, path[:depth]), "renamed", {})
        new = names.get(".".join(path[depth:]))
        if new is not None:
            return ".".join((*path[:depth], new))
    return None


def config_in(annotation: Any) -> type[Config] | None:
    """Return the config that a field holds, also where it may be null."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def _all_keys(schema: type[Config], prefix: str = "") -> Iterator[str]:
    for name, info in schema.model_fields.items():
        yield prefix + name
        child = config_in(info.annotation)
        if child is not None:
            yield from _all_keys(child, f"{prefix}{name}.")


def _suggest(schema: type[Config], path: tuple[str, ...]) -> str:
    siblings = list(_fields(schema, path[:-1]))
    everywhere = list(_all_keys(schema))
    close = [
        ".".join((*path[:-1], name))
        for name in difflib.get_close_matches(path[-1], siblings, n=1, cutoff=0.6)
    ]
    if not close:  # the right key in the wrong place
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
