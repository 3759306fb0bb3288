"""Building a dataset of demonstrations, from raw files to a version of it."""

from __future__ import annotations

from sft.build.dataset import build_dataset
from sft.build.demonstrations import build_demonstrations

__all__ = ["build_dataset", "build_demonstrations"]
