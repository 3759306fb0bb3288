"""What may vary in labelling pairs and in turning votes into preferences."""

from __future__ import annotations

from pydantic import Field, model_validator

from plumbline.config import Config


class LabellerConfig(Config):
    """A simulated labeller: Bradley-Terry noise around a utility, and habits of their own."""

    name: str
    """Who signs the label."""
    temperature: float = Field(0.5, gt=0)
    """Noise, in points of utility: P(A over B) = sigmoid((u_A - u_B) / temperature)."""
    likes_length: float = 0.0
    """Points of utility that each word of a response is worth to this labeller, beyond the gold."""
    careless: float = Field(0.0, ge=0, le=1)
    """Share of the pairs that are answered by a coin toss."""


class LabellingConfig(Config):
    """Who labels, and how many look at each pair."""

    votes: int = Field(3, ge=1)
    """Different labellers for each pair."""
    labellers: tuple[LabellerConfig, ...] = (
        LabellerConfig(name="fair", temperature=0.15),
        LabellerConfig(name="hasty", temperature=0.5),
        LabellerConfig(name="fond-of-length", temperature=0.25, likes_length=0.05),
        LabellerConfig(name="careless", temperature=0.25, careless=0.2),
    )
    """The simulated labellers; pairs are assigned to them at random."""

    @model_validator(mode="after")
    def _enough_labellers(self) -> LabellingConfig:
        names = [labeller.name for labeller in self.labellers]
        if len(set(names)) < len(names):
            raise ValueError(f"labellers share a name: {', '.join(names)}")
        if self.votes > len(names):
            raise ValueError(
                f"votes is {self.votes}, but there are {len(names)} labellers, and nobody votes "
                "twice on a pair. Add labellers or lower votes"
            )
        return self


class AggregationConfig(Config):
    """How votes become one preference a pair."""

    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts whose pairs training never sees."""
    min_votes: int = Field(1, ge=1)
    """Pairs with fewer votes are left out, and counted."""
