"""Virtual environments of programs whose packages this one cannot have, made once on a machine."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from plumbline.errors import PlumblineError

_READY = ".ready"


def location(name: str, packages: bytes) -> Path:
    """Return the folder of an environment in the user's cache, another one for other packages."""
    from platformdirs import user_cache_path

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(packages + version.encode()).hexdigest()[:12]
    return user_cache_path("plumbline") / f"{name}-{digest}"


def interpreter_of(
    folder: Path, install: Sequence[str], what: str, say: Callable[[str], None]
) -> Path:
    """Return an environment's interpreter; make the environment where it is not there.

    ``install``: the arguments of ``pip install``. ``what``: how people call what it holds. Raises
    `PlumblineError` with the end of pip's output.
    """
    from filelock import FileLock

    interpreter = folder / "bin" / "python"
    if (folder / _READY).exists() and interpreter.exists():
        return interpreter
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _READY).exists() or not interpreter.exists():
            say(f"Installing {what} into {folder} (once on this machine) …")
            _make(folder, interpreter, install, what)
    return interpreter


def _make(folder: Path, interpreter: Path, install: Sequence[str], what: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # the rest of an interrupted installation
    venv.create(folder, with_pip=True, symlinks=True)
    command = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    result = subprocess.run([*command, *install], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        log = folder.with_suffix(".log")
        log.write_text(result.stdout + result.stderr)
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        shutil.rmtree(folder, ignore_errors=True)
        raise PlumblineError(
            f"{folder} could not be made, for {what}; nothing was started. The end of pip's "
            f"output (all of it is in {log}):\n{tail}"
        )
    (folder / _READY).touch()
