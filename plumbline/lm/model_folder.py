"""Where a model lies: what a model artefact's folder refers to.

A model artefact is one of three folders:

- a whole model (``config.json``, ``model.safetensors``, tokenizer),
- a PEFT adapter (``adapter_config.json``, ``adapter_model.safetensors``, tokenizer), which names
  its base,
- a reference (``reference.json``) to a model in a local folder or on the hub, which is not copied.

A base in a local folder is named by its path relative to the folder that names it, so both can be
moved together.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from plumbline.errors import ModelError, PlumblineError
from plumbline.lm.remote_code import may_run
from plumbline.runs.artifacts import published, read_json, write_json

REFERENCE = "reference.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "default"
"""The name of the adapter that is being trained; PEFT writes that one at the folder's top."""
#: Adapters on adapters, and references to references, end here at the latest.
_DEEPEST = 8


@dataclass(frozen=True)
class Reference:
    """A model that lies elsewhere, and how it is to be loaded."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    name_or_path: str
    """A hub id, or the absolute path of a folder."""
    revision: str | None = None
    dtype: str = "auto"
    attention: str = "sdpa"
    trust_remote_code: bool = False
    """Whether the model needs Python of its own; it runs only if this command allows it."""

    def write(self, folder: Path) -> None:
        """Write ``reference.json``."""
        values = asdict(self) | {"name_or_path": portable(self.name_or_path, folder)}
        if Path(self.name_or_path).is_dir():
            values["absolute_path"] = self.name_or_path  # where only the folder here is moved
        write_json(folder / REFERENCE, values)

    @classmethod
    def read(cls, folder: Path) -> Reference:
        """Read ``reference.json``."""
        file = folder / REFERENCE
        values = read_object(file)
        absolute = values.pop("absolute_path", None)
        try:
            reference = _REFERENCE.validate_json(json.dumps(values))
            _ABSOLUTE.validate_python(absolute)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise ModelError(
                f"{file} is not a reference to a model: {where}: {problem['msg']}. Give the folder "
                "of the model itself, or make the run again that wrote it."
            ) from None
        return replace(reference, name_or_path=located(reference.name_or_path, folder, absolute))

    @property
    def where(self) -> dict[str, Any]:
        """The keyword arguments that every ``from_pretrained`` takes."""
        trusted = self.trust_remote_code and may_run(self.name_or_path, self.revision)
        return {"revision": self.revision, "trust_remote_code": trusted}


_REFERENCE = TypeAdapter(Reference)
_ABSOLUTE = TypeAdapter(str | None)


@dataclass(frozen=True)
class Source:
    """What a model artefact is made of: a base, and adapters on it."""

    base: Reference
    adapters: tuple[Path, ...] = ()
    """From the base on: all but the last are part of what the last was trained on."""

    @property
    def adapter(self) -> Path | None:
        """The artefact's own adapter."""
        return self.adapters[-1] if self.adapters else None

    @property
    def below(self) -> Source:
        """What the artefact's own adapter stands on, or will if it has none yet."""
        return replace(self, adapters=self.adapters[:-1])

    @property
    def reference(self) -> Reference:
        """What the artefact's own adapter stands on, or will if it has none yet."""
        below = self.adapters[-2] if len(self.adapters) > 1 else None
        return self.base if below is None else replace(self.base, name_or_path=str(below))


def source_of(folder: Path) -> Source:
    """Find out what a model artefact is made of. Raises `ModelError`."""
    return _source_of(folder.resolve(), _DEEPEST)


def _source_of(folder: Path, deepest: int) -> Source:
    if deepest == 0:
        raise ModelError(f"{folder} refers to a model that refers to itself.")
    if (folder / ADAPTER_CONFIG).exists():
        if (folder / REFERENCE).exists():
            base = Reference.read(folder)
        else:
            named = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
            if not isinstance(named, str) or not named:
                raise ModelError(
                    f"{folder} is an adapter that names no base. Write the base's path or hub id "
                    f"as base_model_name_or_path into its {ADAPTER_CONFIG}."
                )
            base = Reference(located(named, folder))
        below = _source_at(base, deepest)
        return Source(below.base, (*below.adapters, folder))
    if (folder / REFERENCE).exists():
        return _source_at(Reference.read(folder), deepest)
    if (folder / "config.json").exists():
        return Source(Reference(str(folder)))
    raise ModelError(
        f"{folder} holds no model: it has neither config.json, {ADAPTER_CONFIG} nor {REFERENCE}."
    )


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file of keys and values, which anyone may have written. Raises `ModelError`."""
    try:
        values = read_json(file)
    except ValueError as error:
        raise ModelError(f"{file} cannot be read: {error}. Fetch the model again.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{file} holds no keys and values. Fetch the model again.")
    return values


def _source_at(reference: Reference, deepest: int) -> Source:
    """Return the source of what a reference points to, loaded as the reference says."""
    folder = Path(reference.name_or_path)
    if not (folder / ADAPTER_CONFIG).exists() and not (folder / REFERENCE).exists():
        return Source(reference)
    below = _source_of(folder, deepest - 1)
    return replace(
        below, base=replace(below.base, dtype=reference.dtype, attention=reference.attention)
    )


def portable(name_or_path: str, folder: Path) -> str:
    """Return a hub id as it is, and a folder's path relative to ``folder``.

    Relative to where ``folder`` will lie once its artefact is made.
    """
    path = Path(name_or_path)
    if not path.is_dir():
        return name_or_path
    return Path(os.path.relpath(path.resolve(), published(folder).resolve())).as_posix()


def located(named: str, folder: Path, absolute: str | None = None) -> str:
    """Return the hub id or absolute path that ``folder`` means by a name in it."""
    if not named.startswith("."):
        beside = folder.parent / Path(named).name  # a store that was moved, or copied
        return str(beside) if Path(named).is_absolute() and beside.is_dir() else named
    later = Path(os.path.normpath(published(folder) / named))  # perhaps not a folder yet
    places = [folder / named, later, *([Path(absolute)] if absolute else [])]
    for place in places:
        if place.is_dir():
            return str(place.resolve())
    raise ModelError(
        f"{folder} refers to a model in {named}, and there is no folder {places[0].resolve()}. "
        "Move the model there as well: the path is relative to the folder that names it."
    )


def load(function: Any, reference: Reference, **options: Any) -> Any:
    """Call a ``from_pretrained`` on a reference; a library's errors become `ModelError`."""
    return translated(function, reference.name_or_path, **reference.where, **options)


def translated(function: Any, name: str, *arguments: Any, **options: Any) -> Any:
    """Call a library's loader of a model by name; its errors become `ModelError`."""
    from safetensors import SafetensorError

    if Path(name).is_absolute() and not Path(name).exists():
        raise ModelError(f"There is no model in {name}: there is no such folder.")
    try:
        return function(name, *arguments, **options)
    except PlumblineError:
        raise
    except SafetensorError as error:
        raise ModelError(
            f"The weights of {name!r} cannot be read ({error}): a file is damaged or was not "
            "downloaded to its end. Fetch it again."
        ) from error
    except Exception as error:  # of files that anyone may have written, a library says anything
        raise ModelError(
            f"The model {name!r} cannot be loaded: {_first_line(error)} {_advice(name, error)}"
        ) from error


def _first_line(error: Exception) -> str:
    """Return what an error says first, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        lines = lines[1:]
    line = lines[0].rstrip(":") if lines else type(error).__name__
    return line if line.endswith((".", "!")) else f"{line}."


def _advice(name: str, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return (
            "It comes with Python of its own, which does not run unless this command allows it: "
            "read that code, then set base.trust_remote_code to true."
        )
    if type(error).__name__ == "UnpicklingError":
        return (
            "Its weights are pickled, and could run code: only tensors are read of such a file. "
            "Give it in safetensors."
        )
    if "size mismatch" in text or "ignore_mismatched_sizes" in text:
        return "Its weights have other shapes than its config says. Fetch both again."
    if Path(name).is_dir():
        file = next(Path(name).glob("*.gguf"), None)
        advice = "The folder must hold what from_pretrained reads."
        return advice if file is None else f"{advice} It holds {file.name}: give that file."
    return (
        "A name is a local folder or a hub id; a hub id needs the network (or a filled cache, with "
        "HF_HUB_OFFLINE=1) and, for gated models, a login: hf auth login."
    )
