"""Label records, by the name that this room knows them by; evaluation reads the same ones."""

from __future__ import annotations

from plumbline.labels import (
    CHOICES,
    LABELS_FILE,
    PURPOSES,
    Choice,
    Label,
    Purpose,
    read_labels,
    write_labels,
)

__all__ = [
    "CHOICES",
    "LABELS_FILE",
    "PURPOSES",
    "Choice",
    "Label",
    "Purpose",
    "read_labels",
    "write_labels",
]
