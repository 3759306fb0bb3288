"""Build a dataset of demonstrations from raw files: clean, de-duplicate, split, mix.

    plumbline data build CONFIG.yaml
    plumbline data log NAME

The result is a version of the dataset, which `plumbline train sft --data NAME` takes.
"""

from __future__ import annotations

from typing import Any

from plumbline.runs.run import Run
from sft.build import build_dataset
from sft.build.config import BuildConfig

CONFIG = BuildConfig
ESSENTIAL = ("name", "sources", "steps", "splits.held_out_share", "data_seed")


def main(run: Run, config: BuildConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    dataset = run.make(
        "demonstrations",
        build_dataset,
        config=config.cleaning(),
        sources=config.opened(),
        data_seed=config.data_seed,
        description=config.description(),
    )
    return dict(dataset.metrics)
