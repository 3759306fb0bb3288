"""The server's own virtual environment, made once per machine.

argilla-server pins versions (pydantic, httpx, typer) that the training environment cannot have, so
the two environments are separate.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from plumbline.errors import PlumblineError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
EMBEDDED = Path(__file__).with_name("embedded")
"""The folder that the server's interpreter imports from, beside its own packages."""
_READY = ".ready"


def python(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the interpreter of the server's environment; make the environment if necessary."""
    from filelock import FileLock

    folder = location()
    interpreter = folder / "bin" / "python"
    if (folder / _READY).exists() and interpreter.exists():
        return interpreter
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / _READY).exists() or not interpreter.exists():
            say(f"Installing the labelling server into {folder} (once on this machine) …")
            _make(folder, interpreter)
    return interpreter


def location() -> Path:
    """Return the environment's folder, another one for other versions."""
    from platformdirs import user_cache_path

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:12]
    return user_cache_path("plumbline") / f"labelling-server-{digest}"


def _make(folder: Path, interpreter: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # the rest of an interrupted installation
    venv.create(folder, with_pip=True, symlinks=True)
    command = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check"]
    result = subprocess.run(
        [*command, "--quiet", "--no-deps", "--requirement", str(REQUIREMENTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        log = folder.with_suffix(".log")
        log.write_text(result.stdout + result.stderr)
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        shutil.rmtree(folder, ignore_errors=True)
        raise PlumblineError(
            f"The labelling server could not be installed into {folder}; nothing was started. The "
            f"end of pip's output (all of it is in {log}):\n{tail}"
        )
    (folder / _READY).touch()
