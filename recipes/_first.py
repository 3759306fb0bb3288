"""The first policy of the embedded world, for recipes that need no more of what comes before."""

from __future__ import annotations

from typing import Protocol

from plumbline.runs.artifacts import Artifact
from plumbline.runs.calls import defer
from plumbline.runs.run import Run
from plumbline.training.base_model import BaseModelConfig, build_base
from plumbline.world.corpus import corpus
from plumbline.world.data import demonstrations
from sft.build import build_demonstrations
from sft.config import DemonstrationsConfig, SFTConfig
from sft.sources import from_rows
from sft.train import train_sft


class Amounts(Protocol):
    """How much of the embedded world is used."""

    @property
    def documents(self) -> int: ...
    @property
    def demonstrations(self) -> int: ...


class FirstPolicy(Protocol):
    """The settings that decide a first policy."""

    @property
    def seed(self) -> int: ...
    @property
    def data_seed(self) -> int: ...
    @property
    def world(self) -> Amounts: ...
    @property
    def base(self) -> BaseModelConfig: ...
    @property
    def demonstrations(self) -> DemonstrationsConfig: ...
    @property
    def sft(self) -> SFTConfig: ...


def first_policy(run: Run, config: FirstPolicy) -> Artifact:
    """Train the base model from scratch on plain text, then the policy on demonstrations."""
    data_seed = config.data_seed
    base = run.make(
        "base",
        build_base,
        config=config.base,
        texts=defer(corpus, data_seed=data_seed, documents=config.world.documents),
        seed=config.seed,
    )
    demonstrated = run.make(
        "demonstrations",
        build_demonstrations,
        config=config.demonstrations,
        source=defer(
            from_rows,
            rows=defer(demonstrations, data_seed=data_seed, count=config.world.demonstrations),
            origin="embedded world",
        ),
        data_seed=data_seed,
    )
    return run.make(
        "sft",
        train_sft,
        config=config.sft,
        base=base,
        demonstrations=demonstrated,
        seed=config.seed,
    )
