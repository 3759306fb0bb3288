"""What may vary in training a reward model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, model_validator

from plumbline.config import Config, only_when
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.config import TrainingConfig
from reward.ensemble import COMBINATIONS
from reward.losses import LOSSES


class AspectConfig(Config):
    """One of several aspects of a response, each with an output of its own."""

    labels: str
    """Column with the probability that the chosen response is the better in this aspect: 1, 0 or
    between. Null in a row: nobody said."""
    weight: float = 1.0
    """Weight in the reward, which is the weighted sum of all aspects."""


class EarlyStoppingConfig(Config):
    """When a training ends before its last step; the best weights on the way are kept.

    A share of the training pairs is held out for this, by prompt; test pairs have no part in it.
    """

    patience: int | None = Field(None, ge=1)
    """Checks without a better held-out loss after which it ends. Null: it never ends early."""
    every: int = only_when(lambda config: config.patience is not None, "patience", 20, ge=1)
    """Optimiser steps between two checks."""
    held_out_share: float = only_when(
        lambda config: config.patience is not None, "patience", 0.1, gt=0, lt=1
    )
    """Share of the prompts in the training split."""


class GateConfig(Config):
    """A gate that weighs the aspects by the prompt, beside their stated weights.

    It learns from pairs that the aspects' heads have not seen.
    """

    held_out_share: float | None = Field(None, gt=0, lt=1)
    """Share of the training prompts that it learns from, which the heads do not see. Null: no gate;
    the stated weights hold for every prompt."""
    hidden: int = only_when(
        lambda config: config.held_out_share is not None, "held_out_share", 32, ge=1
    )
    """Width of its only hidden layer."""


class EnsembleConfig(Config):
    """Several reward models as one: adapters and heads of their own on one frozen base.

    They learn from the same pairs in other orders, from other random heads.
    """

    members: int = Field(1, ge=1)
    """How many reward models are trained. 1: no ensemble."""
    how: Annotated[str, COMBINATIONS] = only_when(
        lambda config: config.members > 1, "members: 2 or more", "mean"
    )
    """How their scores become one reward."""
    uncertainty_weight: float = only_when(
        lambda config: config.members > 1 and COMBINATIONS[config.how].uses_weight,
        "members: 2 or more, and how: uncertainty or a function of your own",
        1.0,
        ge=0,
    )
    """Weight of the variance between members."""


def _reads(name: str) -> Callable[[Any], bool]:
    return lambda config: name in LOSSES[config.loss].uses


def _needs(name: str) -> str:
    return f"loss: {LOSSES.where(lambda loss: name in loss.uses)}"


class RewardConfig(Config):
    """How the reward model is trained on preferences."""

    renamed: ClassVar[Mapping[str, str]] = {
        "center": "center_rewards",
        "centre": "center_rewards",
    }

    tuning: Annotated[TuningConfig, AfterValidator(for_use("reward"))] = TuningConfig(method="lora")
    """Which weights are trained, besides the new head, which always is."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its response, in tokens; longer pairs are left out, and counted."""
    loss: Annotated[str, LOSSES] = "bradley_terry"
    """What a pair teaches. flip_aware, unbiased and generalized allow for mistaken labels,
    rao_kupper and davidson learn from ties, ordinal and regression from ratings."""
    soft_labels: str | None = only_when(_reads("probability"), _needs("probability"), None)
    """Column of the preferences with the probability that the chosen response is the better, such
    as soft_label or vote_share, for cross-entropy with soft labels. Null: chosen is chosen."""
    label_smoothing: float = only_when(
        lambda config: _reads("probability")(config) and config.soft_labels is None,
        f"{_needs('probability')}, and soft_labels: null",
        0.0,
        ge=0,
        lt=0.5,
    )
    """Probability that the rejected response is the better, of every pair."""
    margins: str | None = only_when(_reads("margin"), _needs("margin"), None)
    """Column by how much the chosen response is better, such as margin, which files have and the
    aggregation makes of graded votes. The chosen
    reward is to be ahead by margin_scale times that; with scaled_bradley_terry it is the pair's
    weight."""
    margin_scale: float = only_when(
        lambda config: config.margins is not None and not _reads("strength")(config),
        "margins, and not scaled_bradley_terry",
        0.3,
        ge=0,
    )
    """Target margin for each unit of the column, in nats of log-odds."""
    flip_rate: float = only_when(
        lambda config: _reads("flip_rate")(config) and config.reliability is None,
        f"{_needs('flip_rate')}, and reliability: null",
        0.1,
        gt=0,
        lt=0.5,
    )
    """Share of labels that are mistaken, at random."""
    reliability: str | None = only_when(_reads("flip_rate"), _needs("flip_rate"), None)
    """Column with the probability that a pair's label is right, above 1/2, as the aggregation
    estimates it of the people who voted: confidence, or one of your own."""
    power: float = only_when(_reads("power"), _needs("power"), 0.7, gt=0, le=1)
    """q of the generalised cross-entropy: towards 0 the cross-entropy, at 1 the absolute error."""
    ties: bool = only_when(_reads("tie"), _needs("tie"), True)
    """Train on pairs that the votes call a tie, too: those that the aggregation keeps in
    undecided.jsonl."""
    tie_share: float = only_when(_reads("tie"), _needs("tie"), 1 / 3, gt=0, lt=1)
    """Probability of a tie between two responses of equal reward."""
    ratings: tuple[str, str] | None = only_when(_reads("rating"), _needs("rating"), None)
    """Columns with the ratings of the chosen and of the rejected response."""
    aspects: dict[str, AspectConfig] = only_when(
        lambda config: _reads("probability")(config) and not _reads("tie")(config),
        "loss: a pairwise one without ties",
        {},
    )
    """Aspects by name, such as ``helpful: {labels: helpful, weight: 0.7}``. The model has one
    output for each, and learns its labels beside those of the pair. Empty: one, the reward."""
    aspect_weight: float = only_when(lambda config: bool(config.aspects), "aspects", 1.0, gt=0)
    """Weight of the mean loss over the aspects, beside the loss of the reward."""
    gate: GateConfig = only_when(
        lambda config: len(config.aspects) > 1, "aspects: two or more", GateConfig()
    )
    """Whether the aspects' weights depend on the prompt."""
    center_rewards: float = Field(0.01, ge=0)
    """Weight of the penalty on (r_chosen + r_rejected)^2, which keeps rewards near 0."""
    length_correction: float = only_when(_reads("margin"), _needs("margin"), 0.0, ge=0, le=1)
    """Share of the labels' own preference for length that the reward need not learn: the effect of
    the length difference on the label, fitted before the training, is a margin of each pair."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    """How it is trained."""
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    """Whether it may end early, and keeps its best weights."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Whether several reward models are trained that score as one."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the reward model during training, besides once before it.
    Counts only where a harness is given."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> RewardConfig:
        if _reads("rating")(self) and self.ratings is None:
            raise ValueError(
                f"loss is {self.loss}, which learns from ratings of both responses. Name their "
                "columns: ratings: [COLUMN_OF_CHOSEN, COLUMN_OF_REJECTED]"
            )
        if _reads("strength")(self) and "." not in self.loss and self.margins is None:
            raise ValueError(
                f"loss is {self.loss}, which weighs pairs by their strength. Name its column: "
                "margins: COLUMN"
            )
        if self.ensemble.members > 1 and not self.tuning.has_adapter:
            raise ValueError(
                f"ensemble.members is {self.ensemble.members}, and members are adapters on one "
                f"base, but tuning.method is {self.tuning.method}. Set tuning.method: lora, or "
                "train whole reward models one by one and name them in a file of terms (kind: "
                "ensemble)"
            )
        return self
