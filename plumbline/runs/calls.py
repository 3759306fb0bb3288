"""A stage is a call, and its identity is the call: the function's code and every argument.

`describe` turns arguments into JSON: artefacts become their ids, files a hash of their content,
configs the values that determine the result, and deferred calls the function's code and their own
arguments. The hash of this JSON is the id of what the call makes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

from plumbline.config import Config
from plumbline.errors import ArtifactError, DataError
from plumbline.runs import code_version
from plumbline.runs.artifacts import Artifact, Store, sha256
from plumbline.runs.old_runs import current_name

P = ParamSpec("P")
T = TypeVar("T")

#: Packages whose functions may be called from a manifest.
_OURS = ("plumbline", "sft", "reward", "preference", "rl", "annotation", "evaluation", "recipes")


@dataclass(frozen=True)
class Deferred(Generic[T]):
    """A call that is made when its stage runs, and not at all when the stage is reused."""

    function: Callable[..., T]
    arguments: Mapping[str, Any]


def defer(function: Callable[..., T], **arguments: Any) -> Deferred[T]:
    """Describe a call without making it: ``defer(RewardModelScorer, model=reward_model)``.

    This is how a recipe hands a loaded reward model or an evaluation hook to a stage: the stage
    depends on it, so it is part of the stage's identity, but loading it costs nothing unless the
    stage really runs.
    """
    return Deferred(function, arguments)


@dataclass(frozen=True)
class SourceFile:
    """A user's file, identified by its content: moving it does not change what is made of it."""

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise DataError(
                f"There is no file {self.path} (looked for from {Path.cwd()}). "
                "Correct its path in the command or the config."
            )


@runtime_checkable
class FromOutside(Protocol):
    """Any input that is identified by its content, such as a dataset of several files."""

    def digest(self) -> str:
        """Return what identifies the content."""
        ...


def describe(value: Any) -> Any:
    """Return a JSON value that is equal for two values if and only if they mean the same."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Artifact):
        return {"artifact": value.id}
    if isinstance(value, SourceFile):
        return {"file": sha256(value.path)}
    if isinstance(value, FromOutside):
        return {"file": value.digest()}
    if isinstance(value, Config):
        return {"config": type(value).__name__, "values": value.identity()}
    if isinstance(value, Deferred):
        return describe_call(value.function, value.arguments)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    raise TypeError(
        f"a stage's argument must be an artefact, a config, a deferred call, a source file or "
        f"JSON, not {type(value).__name__}"
    )


def describe_call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a call: name, code digest and arguments."""
    return {
        "function": f"{function.__module__}.{function.__qualname__}",
        "code": code_version.digest(function.__module__),
        "arguments": {name: describe(value) for name, value in arguments.items()},
    }


def identify(kind: str, schema_version: int, description: Mapping[str, Any]) -> str:
    """Return the id of what a described call makes."""
    text = json.dumps([schema_version, description], sort_keys=True, ensure_ascii=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def resolve(value: Any) -> Any:
    """Make the deferred calls in an argument, innermost first."""
    if isinstance(value, Deferred):
        return value.function(**{name: resolve(item) for name, item in value.arguments.items()})
    if isinstance(value, Mapping):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(resolve(item) for item in value)
    return value


def rebuild(description: Any, store: Store) -> Any:
    """Make a described call again, from a manifest: artefacts are looked up, functions are called.

    Only functions of Plumbline's own packages are called, since anyone may have written a manifest.
    """
    if isinstance(description, Mapping):
        if set(description) == {"artifact"}:
            return store.get(description["artifact"])
        if {"function", "arguments"} <= set(description):
            function = function_of(str(description["function"]))
            arguments = description["arguments"].items()
            return function(**{key: rebuild(item, store) for key, item in arguments})
        if {"config", "values"} <= set(description) or set(description) == {"file"}:
            raise ArtifactError(f"A manifest's {sorted(description)} cannot be made again from it.")
        return {key: rebuild(item, store) for key, item in description.items()}
    if isinstance(description, list):
        return [rebuild(item, store) for item in description]
    return description


def function_of(name: str) -> Callable[..., Any]:
    """Return a function of ours that a manifest names."""
    if name.partition(".")[0] not in _OURS:
        raise ArtifactError(
            f"A manifest names {name}, which is not part of Plumbline and is not called."
        )
    module, _, attribute = name.rpartition(".")
    try:
        function: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError):
        if (moved := current_name(name)) != name:
            return function_of(moved)
        raise ArtifactError(
            f"A manifest names {name}, which this version of Plumbline does not have. Make the "
            "stage again with this version, or read the run with the one that made it."
        ) from None
    return function


def artifacts_in(value: Any, name: str) -> Iterator[tuple[str, Artifact]]:
    """Yield every artefact in an argument with the dotted name of its place."""
    if isinstance(value, Artifact):
        yield name, value
    elif isinstance(value, Deferred):
        for key, item in value.arguments.items():
            yield from artifacts_in(item, f"{name}.{key}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from artifacts_in(item, f"{name}.{key}")
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from artifacts_in(item, f"{name}.{number}")
