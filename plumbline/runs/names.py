"""Names that become files: names of runs are checked, other texts are made into safe names."""

from __future__ import annotations

import hashlib
import re

from plumbline.errors import ConfigError

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SAFE = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80
#: Folders beside the runs in the home folder.
RESERVED = frozenset({"store", "comparisons", "campaigns", "datasets", "server"})


def check_run_name(name: str) -> str:
    """Return the name of a run; raise `ConfigError` where it cannot be that of a folder."""
    if not _RUN_NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(
            f"{name!r} cannot be the name of a run. A name has 1 to 100 of the letters a-z, A-Z, "
            "digits, '-', '_' and '.', and begins with a letter or digit."
        )
    if name.lower() in RESERVED:
        raise ConfigError(
            f"{name!r} cannot be the name of a run: the home folder keeps its "
            f"{', '.join(sorted(RESERVED))} under these names. Give another one."
        )
    return name


def safe_file_name(text: str) -> str:
    """Return a text as the name of a file, never a path; different texts have different names.

    A text of safe characters stays as it is. Any other has the rest replaced by ``-`` and gets a
    part of its digest, which keeps it apart from others.
    """
    if len(text) <= _LONGEST and _SAFE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    start = _UNSAFE.sub("-", text).strip(".-")[: _LONGEST - 9].strip(".-")
    return f"{start}-{digest}" if start else digest
