"""Artefacts: folders that stages made, each with a manifest of what it is and how it was made.

An artefact appears under its final name only when it is whole. Its id is derived from everything
that determines it, so the same id means the same content, and a stage whose artefact exists need
not run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Container, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from plumbline.errors import ArtifactError
from plumbline.runs import old_runs

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
_CHUNK = 1 << 20
#: The folder of a store in which artefacts are being made.
PARTIAL = ".partial"
#: The folder of a store that holds, for each artefact, the times of its files when they were last
#: compared with their hashes.
_TIMES = ".times"


class DamagedArtifactError(ArtifactError):
    """An artefact is no longer what was made."""


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

    @field_validator("files")
    @classmethod
    def _files_lie_in_the_folder(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if (
                not path.parts
                or path.is_absolute()
                or ".." in path.parts
                or "\\" in name
                or "\0" in name
            ):
                raise ValueError(f"{name!r} is not a file inside the folder")
        return files


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
            if not isinstance(content, dict) or type(content.get("manifest_version")) is not int:
                raise ValueError("it has no manifest_version")
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
            raise DamagedArtifactError(
                f"{file} cannot be read ({error}). The command that made it makes it again."
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
        return self._problems(self.manifest.files if hashes else ())

    def check(self) -> None:
        """Raise `ArtifactError` where the files are not those that were made.

        Files whose size and time are those of the last check are taken as they are; the content of
        the others is compared with its hash. A file that the manifest does not list is refused: a
        library that opens the folder could take it for a part of a model.
        """
        added = self.unlisted()
        if added:
            raise ArtifactError(
                f"{self.path} holds {_listed(added)}, which its manifest does not list. Nobody "
                "knows what a library would make of it: move it out of the folder."
            )
        times = {
            name: file.stat().st_mtime_ns
            for name in self.manifest.files
            if (file := self.path / name).exists()
        }
        known = self._times()
        problems = self._problems({name for name, time in times.items() if known.get(name) != time})
        if problems:
            raise DamagedArtifactError(
                f"{self.path} is damaged: {_listed(problems)}. The command that made it makes it "
                "again."
            )
        if times != known:
            self.note_times(times)

    def unlisted(self) -> list[str]:
        """Return the files that the manifest does not list; hidden ones, which nobody opens, aside.

        `.DS_Store` and the like are put everywhere by file managers.
        """
        names = (
            str(file.relative_to(self.path)) for file in self.path.rglob("*") if not file.is_dir()
        )
        known = {*self.manifest.files, MANIFEST}
        return sorted(name for name in names if name not in known and not _is_hidden(Path(name)))

    def note_times(self, times: dict[str, int] | None = None) -> None:
        """Remember that the files had their hashes at these times; those of now, if none are given.

        Only in a store. One that cannot be written to is compared each time.
        """
        if times is None:
            times = {name: (self.path / name).stat().st_mtime_ns for name in self.manifest.files}
        if self._times_file.parent.is_dir():
            with contextlib.suppress(OSError):
                write_json(self._times_file, times)

    def _problems(self, hashed: Container[str]) -> list[str]:
        problems = []
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.exists():
                problems.append(f"{name} is missing")
            elif file.stat().st_size != entry.bytes:
                problems.append(f"{name} has {file.stat().st_size} bytes, not {entry.bytes}")
            elif name in hashed and sha256(file) != entry.sha256:
                problems.append(f"{name} was changed: its SHA-256 is another")
        return problems

    def _times(self) -> dict[str, int]:
        try:
            times = read_json(self._times_file)
        except (OSError, ValueError):
            return {}
        return times if isinstance(times, dict) else {}

    @property
    def _times_file(self) -> Path:
        return self.path.parent / _TIMES / f"{self.path.name}.json"


class Store:
    """The folder in which artefacts live, one subfolder each, named by id."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, artifact_id: str) -> Path:
        """Return the folder of an artefact that exists or will be made."""
        return self.root / artifact_id

    def partial(self, artifact_id: str) -> Path:
        """Return the folder in which an artefact is being made."""
        return self.root / PARTIAL / artifact_id

    def find(self, artifact_id: str) -> Artifact | None:
        """Return an artefact whose files are as they were made, or None where there is none.

        Raises `DamagedArtifactError` where they are not.
        """
        path = self.path(artifact_id)
        if not (path / MANIFEST).exists():
            return None
        artifact = Artifact(path)
        artifact.check()
        return artifact

    def set_aside(self, artifact_id: str) -> Path:
        """Rename the folder of a damaged artefact, so that it can be made again; return it."""
        path = self.path(artifact_id)
        aside = path.with_name(f".damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        return aside

    def get(self, prefix: str) -> Artifact:
        """Return the one artefact whose id starts with ``prefix``, with its files as made."""
        matches = [a for a in self if a.path.name.startswith(prefix)]
        if len(matches) == 1:
            matches[0].check()
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
        artifact = Artifact(target)
        (self.root / _TIMES).mkdir(exist_ok=True)
        artifact.note_times()
        return artifact


def is_artifact(folder: Path) -> bool:
    """Return whether a folder is an artefact; other tools have files called manifest.json, too."""
    try:
        return "manifest_version" in read_json(folder / MANIFEST)
    except (OSError, ValueError, TypeError):
        return False


def published(path: Path) -> Path:
    """Return where a path in an artefact in the making will lie once the artefact is made."""
    parts = path.absolute().parts
    if PARTIAL not in parts:
        return path.absolute()
    place = parts.index(PARTIAL)  # store/.partial/ID/out/… becomes store/ID/…
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
    write_whole(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of one."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text, encoding="utf-8")
    _flush(beside)
    beside.replace(file)


def read_json(file: Path) -> Any:
    """Read a JSON file; raise `ValueError` where it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _flush(path: Path) -> None:
    """Ask the system to write a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)


def _listed(texts: list[str], at_most: int = 4) -> str:
    more = f" and {len(texts) - at_most} more" if len(texts) > at_most else ""
    return ", ".join(texts[:at_most]) + more
