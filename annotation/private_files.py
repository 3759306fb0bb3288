"""Files that are replaced whole, and that nobody but their owner can read."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_UNFINISHED = ".new"


def write_private(file: Path, text: str) -> None:
    """Write a file of mode 0600, so that a reader finds the old one or the new one, whole."""
    replace(file, text, mode=0o600)


def replace(file: Path, text: str, mode: int = 0o666) -> None:
    """Write a file, so that a reader finds the old one or the new one, whole.

    One process at a time does so in a folder: two would write to one file beside it.
    """
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # on a disk without locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        beside = file.with_name(f".{file.name}{_UNFINISHED}")
        beside.unlink(missing_ok=True)  # an existing file would keep its mode
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
        os.fsync(folder)
    finally:
        os.close(folder)


def is_unfinished(file: Path) -> bool:
    """Return whether a file is one that is being written, or whose writer was killed."""
    return file.name.startswith(".") and file.name.endswith(_UNFINISHED)


def flush_folder(folder: Path) -> None:
    """Ask the system to put a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
