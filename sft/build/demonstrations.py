"""The first stage of recipes: demonstrations of one source, by the steps of every build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from plumbline.data.records import Row
from plumbline.dropped import DroppedFile, LeftOut
from plumbline.runs.stage import Stage, stage
from plumbline.temporary import TemporaryFolder
from sft.build.config import CleaningConfig, SplitsConfig
from sft.build.dataset import build_dataset
from sft.build.ledger import Ledger
from sft.build.passes import labels_of, run_passes
from sft.cleaning.step import StepConfig
from sft.cleaning.text import UnicodeConfig
from sft.cleaning.turns import LengthConfig, RolesConfig
from sft.config import DemonstrationsConfig
from sft.duplicates.exact import ExactDuplicatesConfig
from sft.sources import Demonstrations, InMemory


@stage("demonstrations", version=2)
def build_demonstrations(
    stage: Stage,
    *,
    config: DemonstrationsConfig,
    source: Demonstrations,
    data_seed: int,
    held_out: Demonstrations | None = None,
) -> Mapping[str, float | None]:
    """Make a dataset of demonstrations with splits ``train`` and ``test``.

    ``held_out`` is the split ``test``, where it is given; what opens as one of its dialogues is not
    trained on. Else a share of the prompts is held out.
    """
    if isinstance(source, InMemory):
        source.rows = source.rows[: config.max_rows]
    if held_out is not None:
        source.split, held_out.split = "train", "test"
    cleaning = CleaningConfig(
        steps=steps_of(config), splits=SplitsConfig(held_out_share=config.held_out_share)
    )
    sources = [source] if held_out is None else [source, held_out]
    return build_dataset(stage, config=cleaning, sources=sources, data_seed=data_seed)


def steps_of(config: DemonstrationsConfig) -> tuple[StepConfig, ...]:
    """Return the steps that a recipe's settings ask for."""
    return (
        UnicodeConfig(repair=False, remove_invisible=False),
        RolesConfig(forms=config.forms),
        LengthConfig(max_characters=config.max_characters),
        *config.cleaning,
        ExactDuplicatesConfig(),
    )


class Cleaned(NamedTuple):
    """What a build would make of a source."""

    first: list[Row]
    """The first of the demonstrations that it would keep."""
    kept: int
    """How many these are."""
    dropped: LeftOut


def clean(source: Demonstrations, config: DemonstrationsConfig, most: int) -> Cleaned:
    """Return what a build would keep of a source, and what it would leave out.

    Nothing is split or written. Of the demonstrations, at most ``most`` are returned.
    """
    dropped, steps = DroppedFile(), steps_of(config)
    with TemporaryFolder() as folder:
        passed = run_passes(
            [source],
            steps,
            folder=folder,
            ledger=Ledger(dropped, labels_of(steps)),
            share=config.held_out_share,
            data_seed=0,
        )
        places = np.flatnonzero(passed.alive)
        return Cleaned(list(passed.spool.rows(places[:most])), len(places), dropped)
