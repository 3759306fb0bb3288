"""What may vary in building a dataset: its sources, steps, splits and mixture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from plumbline.config import Check, Config, Seed, not_in_identity
from plumbline.data.encryption import data_key
from plumbline.data.reader import DataFormatConfig, check_first_rows
from plumbline.data.records import CONVERSATIONS
from plumbline.data.sources import source_at
from plumbline.errors import ConfigError, DataError
from plumbline.runs.calls import Deferred, defer
from sft.build.mixing import MixtureConfig
from sft.cleaning.steps import Steps, read_step
from sft.sources import RESERVED, FileDemonstrations, Split

#: What each build does unless its config says otherwise.
STANDARD_STEPS = tuple(
    read_step(name, number)
    for number, name in enumerate(("unicode", "roles", "length", "exact_duplicates"), 1)
)


def _not_reserved(names: tuple[str, ...]) -> tuple[str, ...]:
    taken = sorted(RESERVED.union(CONVERSATIONS) & set(names))
    if taken:
        raise ValueError(
            f"{taken[0]} is a column of the build's own, or of other datasets. Rename it in the "
            "file, or keep others beside it"
        )
    return names


class SourceConfig(DataFormatConfig):
    """One source of a build: where it lies, how it is read, and what it counts for."""

    path: str = not_in_identity(...)
    """A file, a folder that `datasets` reads, or a dataset of the hub (``org/name:split``)."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often its rows count in the mixture, beside those of other sources of its tier: with 2,
    twice as often."""
    tier: str = Field("base", min_length=1)
    """Which tier of the mixture its rows belong to: ``base``, ``augmented``, ``hard``, or a name of
    your own."""
    license: str | None = None
    """Its licence, for the dataset's card."""
    note: str | None = None
    """What else people should know of it, for the dataset's card."""
    split: Split | None = None
    """train or test: the split of all its rows. Null: a share of its prompts is held out."""
    keep: Annotated[tuple[str, ...], AfterValidator(_not_reserved)] = ()
    """Columns to keep beside the dialogue, such as a confidence that a step reads."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most so many rows. Null reads all."""

    def reading(self) -> DataFormatConfig:
        """Return how its rows are read."""
        names = DataFormatConfig.model_fields
        return DataFormatConfig(**{name: getattr(self, name) for name in names})


class SplitsConfig(Config):
    """What is held out."""

    held_out_share: float = Field(0.05, gt=0, lt=1)
    """Share of the prompts that training never sees. A source with ``split: test`` takes its place:
    then that source is held out, and what opens as one of its rows is not trained on."""


class CleaningConfig(Config):
    """What is done with the rows of all sources."""

    steps: Steps = STANDARD_STEPS
    """Steps of cleaning, in order: names, or settings with ``step: NAME`` among them. docs/data.md
    lists them."""
    splits: SplitsConfig = SplitsConfig()
    """What is held out."""
    mixture: MixtureConfig = MixtureConfig()
    """How many rows of each source and tier are trained on, and in which order."""
    encrypt: bool = False
    """Encrypt the rows of the dataset, kept and left out, under the data key. docs/personal-data.md
    says where the key comes from."""
    workers: int | None = not_in_identity(None, ge=1)
    """Processes that clean. Null: this one for some seconds, then one for each core, at most
    four."""


class BuildConfig(CleaningConfig):
    """A dataset, from raw files to a version of it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    """What the dataset is called; its versions are listed by `plumbline data log NAME`."""
    sources: tuple[SourceConfig, ...] = ()
    """What it is built from: one source or more."""
    data_seed: Seed = 0
    """Seed of the split, the mixture and the steps that draw."""

    @model_validator(mode="after")
    def _something_to_train_on(self) -> BuildConfig:
        if self.sources and all(source.split == "test" for source in self.sources):
            raise ValueError("every source has split: test, so nothing would be trained on")
        return self

    def checks_before_work(self) -> Sequence[Check]:
        """Read the first rows of every source, and try what the steps need."""
        return (
            *(_first_rows(source) for source in self.sources),
            *(check for step in self.steps for check in step.checks_before_work()),
            *((check_data_key,) if self.encrypt else ()),
        )

    def cleaning(self) -> CleaningConfig:
        """Return what is done with the rows."""
        return CleaningConfig(**{n: getattr(self, n) for n in CleaningConfig.model_fields})

    def opened(self) -> list[Deferred[Any]]:
        """Return the sources, to be opened where they are read."""
        if not self.sources:
            raise ConfigError(
                "sources is empty, so there is nothing to build from. Name at least one: "
                "sources: [{path: FILE}]"
            )
        return [
            defer(
                FileDemonstrations,
                file=source_at(source.path),
                config=source.reading(),
                max_rows=source.max_rows,
                keep=list(source.keep),
                split=source.split,
                tier=source.tier,
                weight=source.weight,
            )
            for source in self.sources
        ]

    def description(self) -> str:
        """Return a table of the sources for the dataset's card."""
        rows = [
            f"| {source_at(s.path).name} | {s.tier} | {s.weight:g} | {s.license or '–'} | "
            f"{s.note or ''} |"
            for s in self.sources
        ]
        head = "| source | tier | weight | licence | note |\n|---|---|---|---|---|\n"
        return head + "\n".join(rows)


def check_data_key() -> None:
    """Raise `ConfigError` where there is no data key."""
    data_key()


def _first_rows(source: SourceConfig) -> Check:
    return partial(check_source, source)


def check_source(source: SourceConfig) -> None:
    """Raise `DataError` where none of the first rows of a source can be read."""
    try:
        check_first_rows("demonstrations", source.path, Path(), source.reading())
    except DataError as error:
        raise DataError(f"Source {source.path}: {error}") from None
