"""Folders for what a process needs no longer than it lives, also where it is killed.

A process that is killed deletes nothing. So each folder holds a file that its process keeps locked:
the system lets go of the lock when the process has ended, however it ended, and the next one that
makes or clears folders deletes those that nobody holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

#: How folders begin, and what is in each: the file that is locked, and a folder for the rest.
_PREFIX, _LOCK, _FILES = "plumbline-", ".held", "files"
#: Where processes, by their number, have deleted what others left: forks know it of their parent.
_cleared: set[tuple[int, Path]] = set()


class TemporaryFolder:
    """A folder that is deleted when this object is gone, or later where its process was killed.

    Those that killed processes left beside it are deleted before a process makes its first one.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Make it in the system's folder for temporary files, or in ``parent``."""
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        if (os.getpid(), parent) not in _cleared:  # it takes long where a folder has many files
            clear(parent)
            _cleared.add((os.getpid(), parent))
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
        self.path = folder / _FILES
        """Where its user writes, and nobody else reads. It may be moved elsewhere."""
        self.path.mkdir(mode=0o700)
        self.close = weakref.finalize(self, _close, folder, _hold(folder), os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def clear(parent: Path | None = None) -> None:
    """Delete the folders that killed processes of this user on this machine left in another."""
    for lock in Path(parent or tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # another user's, or it was deleted just now
            _clear_one(lock)


def _clear_one(lock: Path) -> None:
    file = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where it is held
        # On some shared disks a lock is known only to the machine that has it.
        process, _, machine = os.read(file, 1 << 10).decode().partition(" ")
        mine = os.fstat(file).st_uid == os.getuid() and machine == socket.gethostname()
        if mine and process != str(os.getpid()):
            _delete(lock.parent)
    finally:
        os.close(file)


def _hold(folder: Path) -> int | None:
    """Lock a folder; return the open file, or None where the disk has no locks."""
    beside = folder / f"{_LOCK}-new"
    file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.write(file, f"{os.getpid()} {socket.gethostname()}".encode())
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        beside.unlink()
        os.close(file)
        return None
    beside.rename(folder / _LOCK)  # nobody sees it before it is locked
    return file


def _close(folder: Path, held: int | None, owner: int) -> None:
    if os.getpid() != owner:  # a fork; its parent still uses it
        return
    _delete(folder)
    if held is not None:
        os.close(held)


def _delete(folder: Path) -> None:
    """Delete a folder, its lock at last: so that what a kill leaves of it is found again."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
