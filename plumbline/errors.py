"""Errors that a user can act on.

Each says what was set or found, what follows from it, and what to do. The command line prints
them without a traceback and exits with the code of their kind.
"""

from __future__ import annotations

import errno
import os
import re

#: How libraries in Rust (safetensors, tokenizers) say which error of the system they met.
_OF_RUST = re.compile(r"\(os error ([0-9]{1,3})\)")


def brief(value: object, most: int = 80) -> str:
    """Return a value as a message quotes it: its repr, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


class PlumblineError(Exception):
    """An error with something that the user can do about it."""

    exit_code = 1
    trace: str | None = None
    """The traceback of the error behind it, which --debug shows."""


class ConfigError(PlumblineError):
    """A setting is unknown, impossible or of the wrong type."""

    exit_code = 2


class DataError(PlumblineError):
    """Records on disk are missing, malformed or too few."""

    exit_code = 3


class ModelError(PlumblineError):
    """A model, adapter or tokenizer cannot be loaded or does not fit its use."""

    exit_code = 4


class ArtifactError(PlumblineError):
    """An artefact is missing, damaged or of the wrong kind."""

    exit_code = 5


class BusyError(PlumblineError):
    """Another process is making the same thing."""

    exit_code = 6


class SystemFailedError(PlumblineError):
    """The operating system refused something: no room, no permission, a disk that fails."""


#: What to do about an error of the operating system, by its number.
_REMEDIES = {
    errno.ENOSPC: "The disk is full. Free some room (plumbline clean lists what stopped stages "
    "left), and give the same command again: it resumes.",
    errno.EDQUOT: "Your share of the disk is used up. Free some room, and give the same command "
    "again: it resumes.",
    errno.EFBIG: "A file may not be as large here. Raise the limit (ulimit -f unlimited), or give "
    "a folder on another disk, as with --home. The same command resumes.",
    errno.EROFS: "The disk can only be read. Give a folder on another one, as with --home.",
    errno.EACCES: "This user may not do that there. Change the permissions, or give another "
    "folder, as with --home.",
    errno.EPERM: "This user may not do that there. Change the permissions, or give another "
    "folder, as with --home.",
    errno.EMFILE: "Too many files are open. Raise the limit: ulimit -n 4096.",
    errno.ENFILE: "Too many files are open on this machine. End other programs.",
    errno.ENOMEM: "Memory ran out. Lower the batch size or max_length, or end other programs.",
    errno.EIO: "The disk fails. Check it, and the files on it, before anything else.",
    errno.ENAMETOOLONG: "Give a shorter name, or a folder with a shorter path.",
    errno.ENOTDIR: "A part of this path is a file, not a folder. Give another path.",
    errno.EISDIR: "This is a folder, not a file. Give the path of a file.",
    errno.ENOENT: "Check the path. If another program removes files there, stop it.",
    errno.EEXIST: "Something else is there already. Move it away, or give another path.",
    errno.ECONNREFUSED: "Nothing answers there. Check the address, and whether the server is up.",
}


def explain_system_error(error: OSError) -> SystemFailedError:
    """Return an error of the operating system as a sentence with what to do."""
    what = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "For a traceback, run: plumbline --debug …")
    return SystemFailedError(f"{where}{what}. {remedy}")


def explain_failure(error: BaseException) -> PlumblineError | None:
    """Return an error of the system or of too little memory as a sentence; None for another one."""
    number = _OF_RUST.search(str(error))
    if number is not None:
        return explain_system_error(OSError(int(number[1]), os.strerror(int(number[1]))))
    is_device = type(error).__name__ == "OutOfMemoryError"  # torch's, which may not be imported
    if not is_device and not isinstance(error, MemoryError):
        return None
    return SystemFailedError(
        f"The memory of the {'GPU' if is_device else 'machine'} ran out. Lower batch_size or "
        "max_length (gradient_accumulation keeps the size of a step), or set "
        "training.activation_checkpointing. The same command resumes."
    )
