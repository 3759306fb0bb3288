"""Settings of how votes become preferences, and of which pairs are adjudicated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from annotation.aggregation.methods import METHODS
from plumbline.config import Config


class AggregationConfig(Config):
    """How votes become one preference per pair."""

    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts whose pairs training never sees."""
    min_votes: int = Field(1, ge=1)
    """Pairs with fewer votes are left out, and counted, unless a senior labeller decided them."""
    method: Annotated[str, METHODS] = "majority"
    """How votes become an outcome: the majority; a majority in which each person's vote is weighted
    by their reliability; or a model of the people (Dawid-Skene, GLAD, MACE), which helps where
    some of them are careless."""
    ties: Literal["outcome", "abstain"] = "outcome"
    """What a vote for a tie does. As an outcome it competes with A and B. A pair on which the tie
    wins is kept in a file of its own, because it prefers neither response. As an abstention it
    is not counted."""
    both_bad: Literal["outcome", "tie", "abstain"] = "outcome"
    """What a vote that both are bad does: it is an outcome of its own, counts as a tie, or does
    not count."""
    prior_votes: float = Field(0.0, ge=0)
    """Imagined votes for each side that pull soft labels towards one half: with k of them and n
    votes for either side, p becomes (n p + k) / (n + 2 k). Zero leaves soft labels unchanged."""


class AdjudicationConfig(Config):
    """Which pairs a senior labeller should see.

    These settings are separate from `AggregationConfig` because they change the queue and not the
    preferences.
    """

    min_share: float = Field(0.6, ge=0, le=1)
    """Pairs with two or more votes whose most frequent answer has a smaller share count as
    disagreement. Zero finds none."""
    max_entropy: float | None = Field(None, ge=0, le=2)
    """Pairs whose votes have a larger entropy, in bits, count as disagreement too. Null: no
    limit."""
    min_confidence: float = Field(0.75, ge=0, le=1)
    """Pairs whose outcome has a smaller probability by the method are queued. The majority has no
    probability but the share of votes, so this does not apply to it."""
    min_gold_accuracy: float = Field(0.7, ge=0, le=1)
    """People who answer a smaller share of their gold items right are unreliable. Pairs whose
    outcome would change without them are queued."""
    min_gold_items: int = Field(3, ge=1)
    """People with fewer gold items are never called unreliable."""
    flags: tuple[str, ...] = ("unsafe", "personal data")
    """A pair is queued when anybody set one of these flags. Case, blanks, hyphens and underscores
    do not matter."""
    budget: int | None = Field(None, ge=1)
    """The most pairs to queue, by priority; the others are counted. Null: all of them."""
