"""What may vary in sampling, ranking, reading and refining pairs of responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from plumbline.config import Config, only_when
from plumbline.data.reader import DataFormatConfig
from plumbline.data.records import CONVERSATIONS
from plumbline.lm.generation import SamplingConfig
from preference.corruptions import CORRUPTIONS
from preference.pairing import PAIRINGS


class PairFilterConfig(Config):
    """Which pairs of responses are worth a comparison. Null lets all pass."""

    max_similarity: float | None = Field(None, gt=0, lt=1)
    """Pairs whose texts are more alike than this (the share of characters that match) are left
    out: people cannot distinguish them, and DPO would move both."""
    max_length_ratio: float | None = Field(None, gt=1)
    """Pairs in which one text is longer than the other by more than this factor are left out, so
    that length does not show which is better."""


class PairsConfig(Config):
    """How pairs of responses are drawn from policies: for people to compare, or to be ranked."""

    prompts: int = Field(1000, ge=2)
    """Prompts to answer."""
    responses: int = Field(4, ge=2)
    """Responses sampled for each prompt, of each policy."""
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, min_length=1)
    """Temperatures that a prompt's responses have in turn, in place of sampling.temperature. Null:
    that one for all."""
    pairs_per_prompt: int = Field(2, ge=1)
    """Pairs made of them, at most."""
    sampling: SamplingConfig = SamplingConfig()
    """How the responses are drawn."""
    filter: PairFilterConfig = PairFilterConfig()
    """Which pairs are left out."""

    @model_validator(mode="after")
    def _enough_responses(self) -> PairsConfig:
        most = self.responses * (self.responses - 1) // 2
        if self.pairs_per_prompt > most:
            raise ValueError(
                f"pairs_per_prompt is {self.pairs_per_prompt}, but {self.responses} responses make "
                f"only {most} pairs. Raise responses or lower pairs_per_prompt"
            )
        return self

    @model_validator(mode="after")
    def _temperatures_are_of_use(self) -> PairsConfig:
        temperatures = self.temperatures or ()
        if temperatures and self.sampling.temperature != SamplingConfig().temperature:
            raise ValueError(
                f"temperatures are set, and sampling.temperature is {self.sampling.temperature:g}, "
                "which has no effect then. Leave one of the two out"
            )
        if len(temperatures) > self.responses:
            raise ValueError(
                f"there are {len(temperatures)} temperatures for {self.responses} responses. "
                "Raise responses, or leave some temperatures out"
            )
        return self


def _read_by(name: str) -> tuple[Callable[[Any], bool], str]:
    """Return whether the pairing reads a setting, and how an error names the one that does."""
    pairing = PAIRINGS.where(lambda row: row.setting == name)
    return (lambda config: PAIRINGS[config.pairing].setting == name), f"pairing: {pairing}"


class ScoredPairsConfig(Config):
    """Which of a prompt's scored responses make pairs."""

    pairing: Annotated[str, PAIRINGS] = "best_worst"
    """Which of a prompt's scored responses make pairs (preference/pairing.py)."""
    target_gap: float = only_when(*_read_by("target_gap"), 1.0, gt=0)
    """Difference of scores that a pair is to be near."""
    rso_beta: float = only_when(*_read_by("rso_beta"), 0.5, gt=0)
    """Temperature of RSO's acceptance, in units of the score; towards 0 only the best are kept."""
    min_gap: float = Field(0.0, ge=0)
    """Pairs whose scores differ by no more than this are left out, and counted."""


class RankingConfig(ScoredPairsConfig):
    """How a reward model makes preferences of a prompt's responses."""

    held_out_share: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts that training never sees."""


class RefineConfig(Config):
    """What becomes of finished preferences before a training: pairs out, pairs in."""

    filter: PairFilterConfig = PairFilterConfig()
    """Which pairs are left out."""
    balance_length: bool = False
    """Leave out pairs at random until the chosen response is the longer one as often as the
    shorter one, so that length says nothing about which is better."""
    negatives: float = Field(0.0, ge=0, le=1)
    """Share of the training pairs whose chosen response is also paired with a copy of itself that
    has a fault."""
    faults: tuple[Annotated[str, CORRUPTIONS], ...] = only_when(
        lambda config: config.negatives > 0,
        "negatives above 0",
        tuple(CORRUPTIONS),
        min_length=1,
    )
    """Which faults these copies have, each as often (preference/corruptions.py)."""


class LabelFileConfig(DataFormatConfig):
    """How a file of responses that people judged is read and split."""

    max_characters: int = Field(4000, ge=1)
    """Longest prompt with its response, in characters; longer rows are left out, and counted."""
    held_out_share: float = Field(0.15, gt=0, lt=1)
    """Share of the prompts that training never sees."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""


class PreferenceFileConfig(LabelFileConfig):
    """How a file of human preferences is read and split."""

    keep: tuple[str, ...] = ()
    """Columns of numbers that are kept beside each pair, for settings of a training that name one,
    such as dpo.sample_weights or reward.soft_labels; ``margin`` is kept in any case."""

    @field_validator("keep")
    @classmethod
    def _are_not_columns_of_the_pairs(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        own = sorted({"pair_id", "origin", "row"}.union(CONVERSATIONS) & set(keep))
        if own:
            raise ValueError(
                f"{', '.join(own)} cannot be kept: datasets have columns of that name themselves. "
                "Rename it in the file"
            )
        return keep


class RelabelConfig(Config):
    """How preferences are labelled again by reward models."""

    confidence: float = Field(0.7, ge=0.5, le=1)
    """Least probability, in the mean over the models, of the response that they prefer."""
    agreement: float = Field(0.75, ge=0.5, le=1)
    """Least share of the models that prefer it. Of one model it is always 1."""
    unsure: Literal["keep", "drop"] = "keep"
    """What becomes of the other pairs: keep them with their own labels, or leave them out."""
