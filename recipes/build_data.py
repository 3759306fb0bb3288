"""Build a dataset of demonstrations from raw files: clean, de-duplicate, split, mix.

    plumbline data build CONFIG.yaml
    plumbline data log NAME

The result is a version of the dataset, which `plumbline train sft --data NAME` takes.
"""

from __future__ import annotations

from typing import Any

from plumbline.runs.artifacts import read_json
from plumbline.runs.calls import Deferred, defer
from plumbline.runs.run import Run
from recipes._models import find_model
from reward.load_scorer import reward_scorer
from sft.build import build_dataset
from sft.build.config import BuildConfig
from sft.build.dataset import BUILD_FILE
from sft.cleaning.scores import QualityConfig
from sft.versions.history import Dataset

CONFIG = BuildConfig
ESSENTIAL = ("name", "sources", "steps", "mixture.tiers", "splits.held_out_share", "data_seed")


def main(run: Run, config: BuildConfig) -> dict[str, Any]:
    """Run the recipe; return the headline metrics."""
    # 1. Read, clean, split and mix.
    scorers = reward_models(run, config)
    named = dict.fromkeys(name for step in config.steps for name in step.models())
    models = {name: find_model(run, name, f"model {n}") for n, name in enumerate(named, 1)}
    dataset = run.make(
        "demonstrations",
        build_dataset,
        config=config.cleaning(),
        sources=config.opened(),
        data_seed=config.data_seed,
        description=config.description(),
        **({"scorers": scorers} if scorers else {}),
        **({"models": models} if models else {}),
    )

    # 2. The result is a version of the dataset, and the one in use.
    content = read_json(dataset.path / BUILD_FILE)["content"]
    version = Dataset(run.home, config.name).add(dataset, content)
    run.reporter.say(f"    {config.name} {version.name}, content {version.content[:12]}")
    return dict(dataset.metrics) | {"version": version.number}


def reward_models(run: Run, config: BuildConfig) -> dict[str, Deferred[Any]]:
    """Return the reward models that steps name, to be loaded when they score."""
    names = [s.scorer for s in config.steps if isinstance(s, QualityConfig) and not s.is_function()]
    return {
        name: defer(reward_scorer, model=find_model(run, name, f"scorer {number}"))
        for number, name in enumerate(dict.fromkeys(names), 1)
    }
