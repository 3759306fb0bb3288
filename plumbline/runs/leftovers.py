"""What stopped stages left in a store, and whether a command still resumes it.

A stage that was stopped keeps its checkpoints in ``store/.partial``, where the same command takes
them up. Once settings, data or code have changed, its artefact has another id, and nothing resumes
what is there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from plumbline.errors import ArtifactError
from plumbline.runs.artifacts import PARTIAL, Store, read_json
from plumbline.runs.run import RunRecord, all_runs
from plumbline.runs.stage import PLACE

#: How a folder is called while it is being deleted.
_GOING = ".deleted-"


class Leftover(NamedTuple):
    """What a stage left that came to no end."""

    folder: Path
    title: str
    """The stage with its run, ``run/stage``; its id where no run is known."""
    bytes: int
    changed: float
    """When something in it was last written, in seconds since 1970."""
    kept: str | None
    """Why it is not deleted unless it is named; None where nothing resumes it."""
    in_use: bool = False
    """Whether a process makes something of it, or may do so; then it is never deleted."""

    @property
    def id(self) -> str:
        """The id of what was being made."""
        return self.folder.name.removeprefix(_GOING)


def leftovers(home: Path) -> list[Leftover]:
    """Return what is left in a home's store, the largest first."""
    runs, damaged = all_runs(home)
    named = {run.folder.name: run for run in runs}
    partial = Store(home / "store").root / PARTIAL
    folders = sorted(f for f in partial.glob("*") if f.is_dir())
    titles = {folder: _title(folder) for folder in folders}
    newest: dict[str, Path] = {}
    for folder in sorted(folders, key=_changed):
        newest[titles[folder]] = folder
    making = {identity for run in runs for identity in run.making.values()}
    entries = []
    for folder in folders:
        title = titles[folder]
        run, _, stage = title.partition("/")
        kept, in_use = None, False
        if _is_made(folder):
            kept, in_use = "it is being made", True
        elif run in named and named[run].status == "running":
            kept, in_use = f"the run {run} is in progress", True
        elif not folder.name.startswith(_GOING):
            kept = _resumes(
                folder.name in making or run in damaged,
                named.get(run),
                stage,
                is_newest=newest[title] == folder,
            )
        entries.append(Leftover(folder, title, _bytes(folder), _changed(folder), kept, in_use))
    return sorted(entries, key=lambda left: (-left.bytes, left.id))


def _resumes(known: bool, run: RunRecord | None, stage: str, *, is_newest: bool) -> str | None:
    """Return who may resume a folder that nobody uses now, or None."""
    if known:
        return "its run may resume it"
    if run is None:
        return "its run is not known, and the command that began it may resume it"
    if is_newest and stage not in run.state["stages"]:
        return "its run may resume it"
    return None


def delete(left: Leftover) -> bool:
    """Delete what a stage left; return False where a process has taken it up meanwhile."""
    lock = FileLock(f"{left.folder.with_name(left.id)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        going = left.folder.with_name(f"{_GOING}{left.id}")
        if left.folder != going and left.folder.is_dir():
            shutil.rmtree(going, ignore_errors=True)
            left.folder.rename(going)  # nobody resumes half of it
        shutil.rmtree(going, ignore_errors=True)
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # before who waits for it has it
        lock.release()
    return True


def chosen_by(names: Sequence[str], candidates: Sequence[Leftover]) -> list[Leftover]:
    """Return those whose ids begin with a user's names; raise `ArtifactError` where none does."""
    chosen: list[Leftover] = []
    for name in names:
        matches = [left for left in candidates if left.id.startswith(name)]
        if not matches:
            raise ArtifactError(f"Nothing is left of {name!r}. plumbline clean lists what is.")
        if len(matches) > 1:
            ids = ", ".join(left.id for left in matches)
            raise ArtifactError(f"{name!r} could be any of {ids}; give more of the id.")
        chosen += [left for left in matches if left not in chosen]
    return chosen


def _title(folder: Path) -> str:
    """Return the title of the stage that a folder is of; its id where none is written there."""
    try:
        return str(read_json(folder / PLACE)["title"])
    except (OSError, ValueError, LookupError, TypeError):
        return folder.name.removeprefix(_GOING)


def _is_made(folder: Path) -> bool:
    """Return whether a process holds the lock of what is being made."""
    file = folder.with_name(f"{folder.name.removeprefix(_GOING)}.lock")
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, in which others may go meanwhile."""
    for place, _, names in os.walk(folder):  # which passes over a folder that has gone
        files = (Path(place, name) for name in names)
        yield from (file for file in files if file.is_file() and not file.is_symlink())


def _bytes(folder: Path) -> int:
    total = 0
    for file in _files(folder):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # a stage that runs deletes old checkpoints
            continue
    return total


def _changed(folder: Path) -> float:
    """Return when a stage last wrote its clock, which it does every two seconds, or began."""
    for file in (folder / "clock.json", folder):
        try:
            return file.stat().st_mtime
        except FileNotFoundError:
            continue
    return time.time()
