"""Artefacts: folders that stages made, each with a manifest of what it is and how it was made.

An artefact appears under its final name only when it is whole. Its id is derived from everything
that determines it, so the same id means the same content, and a stage whose artefact exists need
not run again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from plumbline.errors import ArtifactError
from plumbline.runs import old_runs

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
_CHUNK = 1 << 20
#: The folder of a store in which artefacts are made.
_PARTIAL = ".partial"


class FileEntry(BaseModel):
    """One file of an artefact."""

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What an artefact is, what made it, from what, and at what cost."""

    model_config = ConfigDict(extra="forbid")

    manifest_version: int = MANIFEST_VERSION
    kind: str
    id: str
    schema_version: int
    stage: str
    """The function that made it."""
    arguments: dict[str, Any]
    """Everything that determines it: configs, seeds, digests of inputs and of the code."""
    inputs: dict[str, str]
    """The artefacts it was made from: argument to id."""
    seed: int | None
    data_seed: int | None
    metrics: dict[str, float | None]
    """Headline figures."""
    versions: dict[str, str]
    machine: dict[str, Any]
    seconds: float
    """Wall time of the making, over all attempts that contributed."""
    peak_memory_bytes: int
    """Largest resident memory of the process while it was made."""
    files: dict[str, FileEntry]


class Artifact:
    """A finished folder with its manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Artefact({self.path.name})"

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, read once."""
        file = self.path / MANIFEST
        try:
            content = read_json(file)
            version = content["manifest_version"]
            if version == 1:
                content = old_runs.current_manifest(content)
            elif version > MANIFEST_VERSION:
                raise ArtifactError(
                    f"{file} has version {version}, and this Plumbline reads versions up to "
                    f"{MANIFEST_VERSION}. A newer one made it: install that to use it."
                )
            return Manifest.model_validate(content)
        except FileNotFoundError:
            raise ArtifactError(f"{self.path} is not an artefact: it has no {MANIFEST}.") from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{file} cannot be read ({type(error).__name__}: {error}). Remove the folder: the "
                "stage is made again when it is needed."
            ) from None

    @property
    def id(self) -> str:
        """The id, such as ``reward-model-3f2a9c0d1e4b``."""
        return self.manifest.id

    @property
    def kind(self) -> str:
        """The kind, such as ``reward-model``."""
        return self.manifest.kind

    @property
    def metrics(self) -> dict[str, float | None]:
        """The headline figures."""
        return self.manifest.metrics

    def problems(self, *, hashes: bool = False) -> list[str]:
        """Return what is wrong with the files: missing, of another size, or of another hash."""
        problems = []
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.exists():
                problems.append(f"{name} is missing")
            elif file.stat().st_size != entry.bytes:
                problems.append(f"{name} has {file.stat().st_size} bytes, not {entry.bytes}")
            elif hashes and sha256(file) != entry.sha256:
                problems.append(f"{name} was changed: its SHA-256 is another")
        return problems


class Store:
    """The folder in which artefacts live, one subfolder each, named by id."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, artifact_id: str) -> Path:
        """Return the folder of an artefact that exists or will be made."""
        return self.root / artifact_id

    def partial(self, artifact_id: str) -> Path:
        """Return the folder in which an artefact is being made."""
        return self.root / _PARTIAL / artifact_id

    def find(self, artifact_id: str) -> Artifact | None:
        """Return a whole artefact, or None. A damaged one is set aside, never used."""
        path = self.path(artifact_id)
        if not (path / MANIFEST).exists():
            return None
        artifact = Artifact(path)
        if artifact.problems():
            aside = path.with_name(f".damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            return None
        return artifact

    def get(self, prefix: str) -> Artifact:
        """Return the one artefact whose id starts with ``prefix``."""
        matches = [a for a in self if a.path.name.startswith(prefix)]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise ArtifactError(f"There is no artefact {prefix!r} in {self.root}.")
        names = ", ".join(a.path.name for a in matches)
        raise ArtifactError(f"{prefix!r} could be any of {names}; give more of the id.")

    def __iter__(self) -> Iterator[Artifact]:
        for manifest in sorted(self.root.glob(f"*/{MANIFEST}")):
            if not manifest.parent.name.startswith("."):
                yield Artifact(manifest.parent)

    def publish(self, folder: Path, manifest: Manifest) -> Artifact:
        """Give a finished folder its final name, in one step that survives a power failure."""
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
        for file in folder.rglob("*"):
            _flush(file)
        _flush(folder)
        target = self.path(manifest.id)
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
        _flush(self.root)
        return Artifact(target)


def published(path: Path) -> Path:
    """Return where a path in an artefact in the making will lie once the artefact is made."""
    parts = path.absolute().parts
    if _PARTIAL not in parts:
        return path.absolute()
    place = parts.index(_PARTIAL)  # store/.partial/ID/out/… becomes store/ID/…
    return Path(*parts[:place], parts[place + 1], *parts[place + 3 :])


def entries(folder: Path) -> dict[str, FileEntry]:
    """Return name, size and hash of every file below a folder."""
    return {
        str(file.relative_to(folder)): FileEntry(sha256=sha256(file), bytes=file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    value = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            value.update(chunk)
    return value.hexdigest()


def write_json(file: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(beside)
    beside.replace(file)


def read_json(file: Path) -> Any:
    """Read a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def _flush(path: Path) -> None:
    """Ask the system to write a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
