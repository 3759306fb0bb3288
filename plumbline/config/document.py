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
    documentation: str


def settings(config: Config, prefix: str = "") -> Iterator[Setting]:
    """Yield every knob of a config with its documentation, in the order of declaration."""
    for name, info in type(config).model_fields.items():
        key, value = f"{prefix}{name}", getattr(config, name)
        if isinstance(value, Config):
            yield from settings(value, prefix=f"{key}.")
            continue
        default = info.get_default(call_default_factory=True)
        yield Setting(
            key=key,
            type=_type_of(info) + _bounds(info),
            value=value,
            default="(required)" if default is PydanticUndefined else default,
            documentation=_documented(info),
        )


def _documented(info: FieldInfo) -> str:
    text, condition = " ".join((info.description or "").split()), condition_of(info)
    return f"{text} Needs {condition.needs}." if condition is not None else text


def _type_of(info: FieldInfo) -> str:
    table = table_of(info)
    if table is None:
        return _type_name(info.annotation)
    nullable = type(None) in typing.get_args(info.annotation)
    return f"{table.choices} | null" if nullable else table.choices


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
