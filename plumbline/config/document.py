"""Settings for people to read: name, value, default, type, and what each does."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from plumbline.config.declare import Config, condition_of, table_of


@dataclass(frozen=True)
class Setting:
    """One setting, for people to read."""

    key: str
    type: str
    value: Any
    default: Any
    text: str
    """What it does."""
    needs: str | None
    """What must be set for it to have an effect; None: nothing."""

    @property
    def documentation(self) -> str:
        """What it does, and what it needs."""
        return f"{self.text} Needs {self.needs}." if self.needs is not None else self.text


def settings(config: Config, prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a config with its documentation, in the order of declaration."""
    for name, info in type(config).model_fields.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, Config):
            yield from settings(value, prefix=f"{key}.")
        else:
            yield _setting(key, info, value)


def declared(
    schema: type[Config], place: Config | None = None, prefix: str = ""
) -> Iterator[Setting]:
    """Yield every setting that a config can hold, with its default.

    Unlike `settings`, this includes the settings of a config that is null by default
    (``files.folder``) and of configs in a list (``labelers[].name``). ``place`` is the default
    config, whose values may differ from those of its class.
    """
    for name, info in schema.model_fields.items():
        key = f"{prefix}{name}"
        value = getattr(place, name, info.get_default(call_default_factory=True))
        if isinstance(value, Config):
            yield from declared(type(value), value, f"{key}.")
            continue
        yield _setting(key, info, "(required)" if value is PydanticUndefined else value)
        for inner in _configs_in(info.annotation):
            is_list = typing.get_origin(info.annotation) in (tuple, list)
            yield from declared(inner, None, f"{key}[]." if is_list else f"{key}.")


def _setting(key: str, info: FieldInfo, value: Any) -> Setting:
    default, condition = info.get_default(call_default_factory=True), condition_of(info)
    return Setting(
        key=key,
        type=_type_of(info) + _bounds(info),
        value=value,
        default="(required)" if default is PydanticUndefined else default,
        text=" ".join((info.description or "").split()),
        needs=condition.needs if condition is not None else None,
    )


def _configs_in(annotation: Any) -> list[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for part in typing.get_args(annotation) for config in _configs_in(part)]


def _type_of(info: FieldInfo) -> str:
    table = table_of(info)
    if table is None:
        return _type_name(info.annotation)
    nullable = type(None) in typing.get_args(info.annotation)
    return f"{table.choices} | null" if nullable else table.choices


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " | ".join(str(value) for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(part) for part in typing.get_args(annotation))
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return "settings"
    if origin in (tuple, list):
        items = {_type_name(a) for a in typing.get_args(annotation) if a is not Ellipsis}
        return f"list of {' or '.join(sorted(items))}"
    if origin is not None:
        inner = ", ".join(_type_name(a) for a in typing.get_args(annotation) if a is not Ellipsis)
        return f"{origin.__name__}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def _bounds(info: FieldInfo) -> str:
    symbols = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in info.metadata
        for name, sign in symbols.items()
        if getattr(bound, name, None) is not None
    ]
    return f" ({', '.join(bounds)})" if bounds else ""
