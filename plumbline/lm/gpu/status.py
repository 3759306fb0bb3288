"""Which fast paths are on, and why others are off: told once, and asked by ``plumbline doctor``."""

from __future__ import annotations

import logging
from enum import Enum
from typing import NamedTuple

import torch

log = logging.getLogger(__name__)


class FastPath(Enum):
    """What may be done faster than plainly on a GPU."""

    PASSES = "packed passes"
    BRANCHES = "one pass over a prompt for several responses"
    DECODING = "decoding from a static cache"
    GRAPHS = "decoding steps as CUDA graphs"
    COMPILED = "compiled layers"


class Finding(NamedTuple):
    """What is known of a path."""

    on: bool
    reason: str


_findings: dict[tuple[FastPath, str, str], Finding] = {}


def switch_on(path: FastPath, device: torch.device, of: str = "", reason: str = "") -> None:
    """Note that a path works on a device, for a kind of model."""
    _findings[path, device.type, of] = Finding(True, reason)


def switch_off(path: FastPath, device: torch.device, reason: str, of: str = "") -> None:
    """Note that a path is not taken, and say so once."""
    key = path, device.type, of
    first = " ".join(reason.split())[:300]
    if _findings.get(key) != Finding(False, first):
        log.warning(
            "%s: off%s, since %s; the plain way is taken.",
            path.value,
            f" for {of}" if of else "",
            first,
        )
    _findings[key] = Finding(False, first)


def finding(path: FastPath, device: torch.device, of: str = "") -> Finding | None:
    """Return what is known of a path, or None where it was not tried yet."""
    return _findings.get((path, device.type, of))


def findings() -> dict[tuple[FastPath, str, str], Finding]:
    """Return all that is known, by path, kind of device and kind of model."""
    return dict(_findings)


def forget() -> None:
    """Forget all of it, so that everything is tried again."""
    _findings.clear()
