"""The server's own virtual environment, made once per machine.

argilla-server pins versions (pydantic, httpx, typer) that the training environment cannot have, so
the two environments are separate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from plumbline import own_environment

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
EMBEDDED = Path(__file__).with_name("embedded")
"""The folder that the server's interpreter imports from, beside its own packages."""


def python(say: Callable[[str], None] = lambda _: None) -> Path:
    """Return the interpreter of the server's environment; make the environment if necessary."""
    install = ["--no-deps", "--requirement", str(REQUIREMENTS)]
    return own_environment.interpreter_of(location(), install, "the labelling server", say)


def location() -> Path:
    """Return the environment's folder, another one for other versions."""
    return own_environment.location("labelling-server", REQUIREMENTS.read_bytes())
