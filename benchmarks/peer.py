"""TRL's environment and workers that take turns, for benchmarks that compare with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ("torch==2.13.0", "trl==1.12.0")


def peer_python() -> Path:
    """Return the interpreter of TRL's environment; make it where it is not.

    What TRL needs has the versions that the project's constraints name when it is made.
    """
    from filelock import FileLock
    from platformdirs import user_cache_path

    constraints = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith(("#", "trl=="))
    ]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join([*PEER, version]).encode()).hexdigest()[:12]
    folder = user_cache_path("plumbline") / f"benchmark-trl-{digest}"
    interpreter = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / ".ready").exists():
            print(f"Installing {' '.join(PEER)} into {folder} (once on this machine) …", flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
            venv.create(folder, with_pip=True, symlinks=True)
            pinned = folder / "constraints.txt"
            pinned.write_text("\n".join(constraints))
            command = [str(interpreter), "-m", "pip", "install", "--quiet"]
            subprocess.run([*command, "--constraint", str(pinned), *PEER], check=True)
            (folder / ".ready").touch()
    return interpreter


def take_turn(worker: subprocess.Popen[str]) -> dict[str, float]:
    """Let a worker work once; return the line of JSON that it answers with."""
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if line.startswith("{"):
            reply: dict[str, float] = json.loads(line)
            return reply
    raise RuntimeError(f"a worker ended: {worker.args!r}")
