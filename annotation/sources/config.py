"""Settings of simulated labellers and of files of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from plumbline.config import Config
from plumbline.data.parts import Columns


class LabelerConfig(Config):
    """A simulated labeller: Bradley-Terry noise around a utility, and biases of their own."""

    name: str
    """The name on this labeller's labels."""
    temperature: float = Field(0.5, gt=0)
    """Noise, in points of utility: P(A over B) = sigmoid((u_A - u_B) / temperature)."""
    likes_length: float = 0.0
    """Points of utility that this labeller adds for each word of a response."""
    careless: float = Field(0.0, ge=0, le=1)
    """Share of the pairs that this labeller answers by a coin toss."""


class LabelingConfig(Config):
    """Simulated labellers, and how many of them vote on each pair."""

    votes: int = Field(3, ge=1)
    """Different labellers per pair."""
    labelers: tuple[LabelerConfig, ...] = (
        LabelerConfig(name="fair", temperature=0.15),
        LabelerConfig(name="hasty", temperature=0.5),
        LabelerConfig(name="fond-of-length", temperature=0.25, likes_length=0.05),
        LabelerConfig(name="careless", temperature=0.25, careless=0.2),
    )
    """The simulated labellers. Pairs are assigned to them at random."""

    @model_validator(mode="after")
    def _enough_labelers(self) -> LabelingConfig:
        names = [labeler.name for labeler in self.labelers]
        if len(set(names)) < len(names):
            raise ValueError(f"labellers share a name: {', '.join(names)}")
        if self.votes > len(names):
            raise ValueError(
                f"votes is {self.votes}, but there are {len(names)} labellers, and nobody votes "
                "twice on a pair. Add labellers or lower votes"
            )
        return self


class LabelFileConfig(Config):
    """How a file of labels is read: which columns hold what, and what its answers mean."""

    renamed: ClassVar[Mapping[str, str]] = {
        "pair_id": "columns.item",
        "annotator": "columns.person",
        "choice": "columns.vote",
    }

    columns: Columns = Field(default_factory=dict)
    """Which column holds which part of a label: ``{item: pair, person: who, vote: answer}``. Those
    left out are ``pair_id``, ``annotator``, ``choice``, and the others by their own names."""
    choices: dict[str, Literal["a", "b", "tie", "both_bad"]] = Field(
        {"a": "a", "b": "b", "tie": "tie", "both_bad": "both_bad"}
    )
    """What each answer in the file means."""
    purpose: Literal["vote", "gold", "repeat", "adjudication"] = "vote"
    """What the labels are for, where the file has no column ``purpose``."""
