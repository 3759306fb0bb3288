"""Nothing leaves the machine unless the user asks for it.

Several libraries that Plumbline builds on send usage statistics by default. They read these
variables when they are imported, which is why importing `plumbline` sets them first. A variable
that the user has set is left as it is.
"""

from __future__ import annotations

import os

#: What switches each library's reporting off.
OPT_OUT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # the hub client, and through it TRL's trainers
    "DO_NOT_TRACK": "1",  # the convention that several tools share
    "ARGILLA_ENABLE_TELEMETRY": "0",
}
ALLOW = "PLUMBLINE_ALLOW_TELEMETRY"


def apply() -> None:
    """Switch the libraries' telemetry off, unless the user has allowed it."""
    if os.environ.get(ALLOW) == "1":
        return
    for name, value in OPT_OUT.items():
        os.environ.setdefault(name, value)


def sending() -> list[str]:
    """Return the variables under which some library may report home."""
    return [name for name, value in OPT_OUT.items() if os.environ.get(name) != value]
