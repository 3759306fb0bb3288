"""Declaring settings: what may vary, what it means, and when it has an effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo

from plumbline.errors import brief
from plumbline.tables import Table, code_of

#: Something to try before a run: it raises a `PlumblineError` with what to do.
Check = Callable[[], None]


class Config(BaseModel):
    """The base of every config: unknown keys are refused, values are fixed once read.

    A docstring under a field is its documentation. A field declared with `not_in_identity` (a
    batch size for scoring, for example) does not change what a stage makes, so changing it does
    not run the stage again. A field declared with `only_when` has an effect under a condition and
    is refused without it.
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of settings, each with the new one, which the error names."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )

    def checks_before_work(self) -> Sequence[Check]:
        """Return what is tried before the first stage runs: what this config alone asks for.

        Each is a function of a module, with its arguments, that raises a `PlumblineError` where
        this machine or these files cannot do what is set. It runs in a process of its own.
        """
        return ()

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, as JSON types."""
        values = self.model_dump(mode="json")
        for name, info in type(self).model_fields.items():
            if _is_not_in_identity(info):
                del values[name]
            elif isinstance(child := getattr(self, name), Config):
                values[name] = child.identity()
            elif isinstance(child, tuple) and any(isinstance(entry, Config) for entry in child):
                values[name] = [
                    entry.identity() if isinstance(entry, Config) else entry for entry in child
                ]
            elif table_of(info) is not None and "." in str(child):
                values[name] = {"function": child, "code": code_of(child)}
        return values

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self, info: ValidationInfo) -> Config:
        """Refuse settings without effect given to the constructor; `load` does the same."""
        if not info.context:
            problems = [text for _, text in ineffective(self, type(self), _as_mapping(self))]
            if problems:
                raise ValueError("; ".join(problems))
        return self


#: More trainings than this are a slip of the keyboard.
MOST_SEEDS = 1_000
_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)


def _spelled_out(value: Any) -> Any:
    """Return the numbers that a text such as ``0-4`` or ``0,2,5-7`` stands for."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    numbers: list[int] = []
    for part in value.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{brief(value)} is not a list of seeds: write 0-4, 0,2,5-7 or [0, 1]")
        low, high = int(match[1]), int(match[2] or match[1])
        if not low <= high < low + MOST_SEEDS:
            raise ValueError(f"{part.strip()} is not a range of 1 to {MOST_SEEDS:,} seeds")
        numbers += range(low, high + 1)
    return tuple(numbers)


def _once_each(value: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(set(value)) == len(value) <= MOST_SEEDS:
        raise ValueError(
            f"{brief(list(value))} must be different seeds, 1 to {MOST_SEEDS:,} of them"
        )
    return value


#: A seed. The bound is numpy's, whose generator a trainer seeds, too.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
#: Training seeds: a list, one number, or a text such as ``0-4``.
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_spelled_out), AfterValidator(_once_each)]


def not_in_identity(default: Any, **constraints: Any) -> Any:
    """Declare a field that changes how a result is made, but not the result."""
    return Field(default, json_schema_extra={"not_in_identity": True}, **constraints)


@dataclass(frozen=True)
class _OnlyWhen:
    """The condition under which a setting has an effect."""

    holds: Callable[[Any], bool]
    needs: str


def only_when(
    holds: Callable[[Any], bool],
    needs: str,
    default: Any,
    *,
    in_identity: bool = True,
    **constraints: Any,
) -> Any:
    """Declare a field that has an effect only where ``holds(config)`` is true of its own config.

    Elsewhere a value other than the default is refused. ``needs`` says what must be set, in words
    that follow "it needs": ``only_when(_has_gae, "estimator: gae", 0.95, ge=0, le=1)``.
    """
    field = Field if in_identity else not_in_identity
    info: Any = field(default, **constraints)
    info.metadata.append(_OnlyWhen(holds, needs))
    return info


def condition_of(info: FieldInfo) -> _OnlyWhen | None:
    """Return the condition of a field that is declared with `only_when`."""
    return next((part for part in info.metadata if isinstance(part, _OnlyWhen)), None)


def table_of(info: FieldInfo) -> Table[Any] | None:
    """Return the table whose rows a field names."""
    return next((part for part in info.metadata if isinstance(part, Table)), None)


def ineffective(
    config: Config, defaults: Config | type[Config], settings: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield path and message for each given value that is not its default and has no effect."""
    for name, value in settings.items():
        info = type(config).model_fields.get(name)
        if info is None:
            continue
        child = getattr(config, name)
        default = (
            getattr(defaults, name)
            if isinstance(defaults, Config)
            else info.get_default(call_default_factory=True)
        )
        condition, key = condition_of(info), f"{prefix}{name}"
        nested = _as_mapping(value) if isinstance(child, Config) else None
        if condition is not None and not condition.holds(config):
            for path, leaf, was in _differences(child, default, nested, (name,)):
                shown = prefix + ".".join(path)
                yield (
                    path,
                    f"{shown} is {brief(leaf)}, which has no effect here: it needs "
                    f"{condition.needs}. Leave {shown} out (its default is {brief(was)}), or "
                    "set that",
                )
        elif nested is not None:
            below = default if isinstance(default, Config) else type(child)
            for path, text in ineffective(child, below, nested, f"{key}."):
                yield (name, *path), text


def _as_mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Config):
        return {name: getattr(value, name) for name in value.model_fields_set}
    return value if isinstance(value, Mapping) else {}


def _differences(
    value: Any, default: Any, settings: Mapping[str, Any] | None, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield path, value and default of the given leaves that differ from their defaults."""
    if settings is None or not isinstance(value, Config):
        if value != default:
            yield path, value, default
        return
    for name, below in settings.items():
        if name not in type(value).model_fields:
            continue
        child = getattr(value, name)
        was = (
            getattr(default, name)
            if isinstance(default, Config)
            else type(value).model_fields[name].get_default(call_default_factory=True)
        )
        nested = _as_mapping(below) if isinstance(child, Config) else None
        yield from _differences(child, was, nested, (*path, name))


def _is_not_in_identity(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("not_in_identity"))
