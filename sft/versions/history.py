"""The versions of a dataset: which builds it had, and which one is in use.

A version is an artefact of the store, and never changes. Beside the runs, ``datasets/NAME.json``
lists the versions of a dataset in the order in which they were built, and which of them were in
use, so that `rollback` returns to the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from plumbline.errors import ArtifactError, DataError
from plumbline.runs.artifacts import Artifact, Store, read_json, write_json

FOLDER = "datasets"
_FILE_VERSION = 1


class Version(BaseModel):
    """One build of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    """From 1, in the order in which they were built."""
    content: str
    """Digest of its rows: two versions with the same rows have the same."""
    artifact: str
    """The id of the artefact that holds it."""
    built: str
    """When, as ISO 8601."""
    train_rows: int
    test_rows: int
    dropped_rows: int

    @property
    def name(self) -> str:
        """What people call it: ``v3``."""
        return f"v{self.number}"


class History(BaseModel):
    """The versions of one dataset."""

    model_config = ConfigDict(extra="forbid")

    file_version: int = _FILE_VERSION
    versions: list[Version] = []
    used: list[int] = []
    """Numbers of the versions in use, one after the other; the last one is in use now."""

    @property
    def current(self) -> Version | None:
        """The version in use."""
        return self.version(self.used[-1]) if self.used else None

    def version(self, number: int) -> Version:
        """Return a version by its number."""
        return next(version for version in self.versions if version.number == number)

    def find(self, name: str, dataset: str) -> Version:
        """Return a version by its name (``v3`` or ``3``), or the start of its content or artefact.

        Raises `DataError` where there is none, or more than one.
        """
        number = name.removeprefix("v")
        matches = [v for v in self.versions if number.isdecimal() and v.number == int(number)] or [
            v
            for v in self.versions
            if len(name) >= 4 and (v.content.startswith(name) or v.artifact.startswith(name))
        ]
        if len(matches) == 1:
            return matches[0]
        names = ", ".join(version.name for version in matches or self.versions)
        if matches:
            raise DataError(f"{name!r} could be {names} of {dataset!r}. Give one of these names.")
        raise DataError(f"The dataset {dataset!r} has no version {name!r}; it has {names}.")


class Dataset:
    """A dataset by its name, with the versions that it had under a home folder."""

    def __init__(self, home: Path, name: str) -> None:
        self.home, self.name = home, name
        self._file = home / FOLDER / f"{name}.json"

    def exists(self) -> bool:
        """Return whether it was ever built."""
        return self._file.is_file()

    def history(self) -> History:
        """Return its versions. Raises `DataError` where there are none."""
        if not self.exists():
            others = ", ".join(all_datasets(self.home)) or "none"
            raise DataError(
                f"There is no dataset {self.name!r} in {self.home}; there are: {others}. "
                "`plumbline data build CONFIG` makes one."
            )
        try:
            content = read_json(self._file)
            version = content.get("file_version") if isinstance(content, dict) else None
            if isinstance(version, int) and version > _FILE_VERSION:
                raise DataError(
                    f"{self._file} has version {version}, and this Plumbline reads versions up to "
                    f"{_FILE_VERSION}. Install the newer one that wrote it."
                )
            return History.model_validate(content)
        except (ValidationError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise DataError(
                f"{self._file} cannot be read ({first}). The datasets themselves are in the store; "
                "remove this file, and build again: what is made already is only listed."
            ) from None

    def add(self, artifact: Artifact, content: str) -> Version:
        """Note a build as a version, and use it.

        The same artefact again is the same version.
        """
        with self._changing(new=True) as history:
            same = [v for v in history.versions if v.artifact == artifact.id]
            if same:
                version = same[0]
            else:
                metrics = artifact.metrics
                counts = {
                    name: int(metrics[name] or 0)
                    for name in ("train_rows", "test_rows", "dropped_rows")
                }
                version = Version(
                    number=len(history.versions) + 1,
                    content=content,
                    artifact=artifact.id,
                    built=datetime.now(UTC).isoformat(timespec="seconds"),
                    **counts,
                )
                history.versions.append(version)
            _use(history, version)
        return version

    def use(self, name: str) -> Version:
        """Make a version the one in use."""
        with self._changing() as history:
            version = history.find(name, self.name)
            self.artifact(version)  # it must still be there
            _use(history, version)
        return version

    def rollback(self) -> tuple[Version, Version]:
        """Use the version that was in use before; return the one left, and the one in use now."""
        with self._changing() as history:
            if len(history.used) < 2:
                raise DataError(
                    f"No other version of {self.name!r} was in use before "
                    f"v{history.used[-1] if history.used else 0}, so there is nothing to return to."
                )
            left = history.version(history.used.pop())
            current = history.version(history.used[-1])
            self.artifact(current)
        return left, current

    def artifact(self, version: Version) -> Artifact:
        """Return the artefact of a version, whose files are as they were made."""
        artifact = Store(self.home / "store").find(version.artifact)
        if artifact is None:
            raise ArtifactError(
                f"{version.name} of {self.name!r} is {version.artifact}, which is no longer in the "
                "store. The same sources and settings build it again."
            )
        return artifact

    @contextmanager
    def _changing(self, *, new: bool = False) -> Iterator[History]:
        """Read the history, let the block change it, and write it; one process at a time."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._file}.lock"):
            history = History() if new and not self.exists() else self.history()
            yield history
            write_json(self._file, history.model_dump(mode="json"))


def _use(history: History, version: Version) -> None:
    if not history.used or history.used[-1] != version.number:
        history.used.append(version.number)


def all_datasets(home: Path) -> Sequence[str]:
    """Return the names of all datasets under a home folder."""
    return sorted(file.stem for file in (home / FOLDER).glob("*.json"))


def find_version(home: Path, name: str) -> Artifact | None:
    """Return the artefact of a dataset's version, or None where a name is of no dataset.

    ``support`` is the version in use of the dataset of that name, ``support@v2`` its second one.
    """
    dataset_name, _, version = name.partition("@")
    if "/" in name or not dataset_name:
        return None
    dataset = Dataset(home, dataset_name)
    if not dataset.exists():
        return None
    history = dataset.history()
    chosen = history.find(version, dataset_name) if version else history.current
    return None if chosen is None else dataset.artifact(chosen)
