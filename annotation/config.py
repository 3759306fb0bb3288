"""What may vary in labelling pairs and in turning votes into preferences."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from plumbline.config import Config


class LabelerConfig(Config):
    """A simulated labeller: Bradley-Terry noise around a utility, and habits of their own."""

    name: str
    """Who signs the label."""
    temperature: float = Field(0.5, gt=0)
    """Noise, in points of utility: P(A over B) = sigmoid((u_A - u_B) / temperature)."""
    likes_length: float = 0.0
    """Points of utility that each word of a response is worth to this labeller, beyond the gold."""
    careless: float = Field(0.0, ge=0, le=1)
    """Share of the pairs that are answered by a coin toss."""


class LabelingConfig(Config):
    """Who labels, and how many look at each pair."""

    votes: int = Field(3, ge=1)
    """Different labellers for each pair."""
    labelers: tuple[LabelerConfig, ...] = (
        LabelerConfig(name="fair", temperature=0.15),
        LabelerConfig(name="hasty", temperature=0.5),
        LabelerConfig(name="fond-of-length", temperature=0.25, likes_length=0.05),
        LabelerConfig(name="careless", temperature=0.25, careless=0.2),
    )
    """The simulated labellers; pairs are assigned to them at random."""

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


Method = Literal["majority", "dawid_skene", "glad", "mace", "weighted"]
"""How votes are brought to one outcome; see `annotation.aggregation.consensus`."""


class AggregationConfig(Config):
    """How votes become one preference a pair."""

    held_out_share: float = Field(0.2, gt=0, lt=1)
    """Share of the prompts whose pairs training never sees."""
    min_votes: int = Field(1, ge=1)
    """Pairs with fewer votes are left out, and counted, unless a senior labeller decided them."""
    method: Method = "majority"
    """How votes become an outcome: the majority; a majority weighted by each person's reliability;
    or a model of the people (Dawid-Skene, GLAD, MACE), which pays where some of them are
    careless."""
    ties: Literal["outcome", "abstain"] = "outcome"
    """What a vote for a tie does. As an outcome it competes with A and B, and a pair on which it
    wins is kept apart, since it prefers neither; as an abstention it is not counted."""
    both_bad: Literal["outcome", "tie", "abstain"] = "outcome"
    """What a vote that both are bad does: an outcome of its own, the same as a tie, or nothing."""
    prior_votes: float = Field(0.0, ge=0)
    """Imagined votes for each side, by which soft labels are drawn towards one half: with k of
    them and n votes for a side, p becomes (n p + k) / (n + 2 k). Zero leaves them as they are."""


class AdjudicationConfig(Config):
    """Which pairs a senior labeller should see.

    Apart from `AggregationConfig`, because other thresholds change the queue and not the
    preferences, which need not be made anew.
    """

    min_share: float = Field(0.6, ge=0, le=1)
    """Pairs on which the commonest answer has a smaller share of at least two votes are in
    disagreement. Zero finds none."""
    max_entropy: float | None = Field(None, ge=0, le=2)
    """Pairs whose votes have a larger entropy, in bits, are in disagreement too. Null: do not
    ask."""
    min_confidence: float = Field(0.75, ge=0, le=1)
    """Pairs on whose outcome the method is less sure than this. Not asked of a majority, whose
    confidence is the share of votes."""
    min_gold_accuracy: float = Field(0.7, ge=0, le=1)
    """People who are right on a smaller share of their gold items are suspect; pairs whose outcome
    would be another without them are queued."""
    min_gold_items: int = Field(3, ge=1)
    """Nobody is suspected on fewer gold items."""
    flags: tuple[str, ...] = ("unsafe", "personal data")
    """Flags which, set by anybody, queue a pair. Case, blanks, hyphens and underscores do not
    matter."""
    budget: int | None = Field(None, ge=1)
    """The most pairs to queue, the most valuable first; the others are counted. Null: all."""


class LabelFileConfig(Config):
    """How a file of labels is read: which columns hold what, and what its answers mean."""

    pair_id: str = "pair_id"
    """Column with the pair."""
    annotator: str = "annotator"
    """Column with who answered."""
    choice: str = "choice"
    """Column with the answer."""
    choices: dict[str, Literal["a", "b", "tie", "both_bad"]] = Field(
        {"a": "a", "b": "b", "tie": "tie", "both_bad": "both_bad"}
    )
    """What each answer in the file means."""
    purpose: Literal["vote", "gold", "repeat", "adjudication"] = "vote"
    """What the labels are for, where the file has no column ``purpose``."""


class SelectionConfig(Config):
    """Which pairs are worth a person's time, and how many of them are asked for at once."""

    strategy: Literal["uniform", "disagreement", "margin", "diverse"] = "uniform"
    """uniform: at random. disagreement: where the reward models of an ensemble disagree most.
    margin: where they lean least, taken together. diverse: of those they disagree on, pairs that
    are unlike each other and unlike what is labelled."""
    count: int = Field(100, ge=1)
    """Pairs to choose."""
    measure: Literal["mutual_information", "variance"] = "mutual_information"
    """How disagreement is measured: what a label would tell of which model is right, or the
    variance of their probabilities."""
    temperature: float = Field(1.0, gt=0)
    """P(A over B) = sigmoid((r_A - r_B) / temperature) turns scores into probabilities."""
    candidates: int = Field(4, ge=1)
    """diverse: this many times count of the best by disagreement are candidates."""
    near_identical: float | None = Field(0.98, gt=0, le=1)
    """Pairs whose features have at least this cosine are nearly the same, and only one of them is
    chosen at once. Null turns this off."""

    @property
    def members_needed(self) -> int:
        """Reward models without which the strategy has nothing to go by."""
        return {"uniform": 0, "margin": 1}.get(self.strategy, 2)
