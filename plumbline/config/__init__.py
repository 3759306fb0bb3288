"""Settings: declared, documented and checked in one place, then written beside what they made.

A stage declares its settings as a `Config`; a recipe's config is a `Config` of those. Values come
from a YAML file, then from ``--set key.path=value``. All mistakes are reported
together, with file, line, key, value and the nearest right key, before anything is computed.
"""

from __future__ import annotations

from plumbline.config.declare import Check, Config, Seed, Seeds, not_in_identity, only_when
from plumbline.config.document import Setting, declared, settings
from plumbline.config.read import changed, load, to_yaml

__all__ = [
    "Check",
    "Config",
    "Seed",
    "Seeds",
    "Setting",
    "changed",
    "declared",
    "load",
    "not_in_identity",
    "only_when",
    "settings",
    "to_yaml",
]
