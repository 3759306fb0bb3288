"""Whose code may run: a model's own Python runs only if the user of this command says so.

A model folder, an adapter or an artefact can ask for it (``trust_remote_code`` in its
``reference.json``), and is not heard: it may come from anyone. A config that the user gives is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

#: Read by the processes of stages, which have the environment of the command.
_VARIABLE = "PLUMBLINE_TRUSTED_MODELS"


def allow(name_or_path: str, revision: str | None) -> None:
    """Let the Python of one model run, in this process and in those of its stages."""
    allowed = [*_allowed(), _key(name_or_path, revision)]
    os.environ[_VARIABLE] = json.dumps(sorted(map(list, set(map(tuple, allowed)))))


def may_run(name_or_path: str, revision: str | None) -> bool:
    """Return whether the user allowed the Python of a model."""
    return _key(name_or_path, revision) in _allowed()


def _allowed() -> list[list[str]]:
    values: list[list[str]] = json.loads(os.environ.get(_VARIABLE, "[]"))
    return values


def _key(name_or_path: str, revision: str | None) -> list[str]:
    path = Path(name_or_path).expanduser()
    return [str(path.resolve()) if path.is_dir() else name_or_path, revision or ""]
