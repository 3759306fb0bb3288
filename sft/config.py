"""What may vary in building demonstrations and in training on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from plumbline.config import Check, Config
from plumbline.data.reader import DataFormatConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.training.config import TrainingConfig
from plumbline.training.held_out import HeldOutConfig
from sft.cleaning.steps import Steps
from sft.forms import FORMS, Form
from sft.losses import WRONG_ANSWER_LOSSES


class DemonstrationsConfig(DataFormatConfig):
    """How demonstrations are cleaned and split."""

    forms: tuple[Form, ...] = FORMS
    """Forms of demonstration to keep; rows of others are left out, and counted."""
    max_characters: int = Field(8000, ge=1)
    """Longest conversation, in characters; longer ones are left out, and counted."""
    cleaning: Steps = ()
    """Further steps of cleaning, in order: names, or settings with ``step: NAME`` among them, as in
    `plumbline data build`. docs/data.md lists them."""
    held_out_share: float = Field(0.05, gt=0, lt=1)
    """Share of the prompts that training never sees, for the loss on held-out demonstrations."""
    max_rows: int | None = Field(None, ge=1)
    """Read at most this many rows. Null reads all."""

    def checks_before_work(self) -> Sequence[Check]:
        """Try what the steps need."""
        return [check for step in self.cleaning for check in step.checks_before_work()]


class OtherTasksConfig(Config):
    """How other tasks are trained along, such as old ones that are not to be forgotten.

    Counts only where other demonstrations are given (`replay` of the recipe train_sft).
    """

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the rows that are drawn from the other tasks."""
    weights: tuple[float, ...] = ()
    """Their weights among themselves, in the order in which they are given. Empty: all alike."""
    sampling: Literal["fixed", "dynamic"] = "fixed"
    """dynamic: after each held-out loss, tasks whose loss falls slowly are drawn more often (it
    needs held_out.every)."""
    gradients: Literal["sum", "pcgrad"] = "sum"
    """pcgrad: what points against another task's gradient is taken out of each (Yu et al., 2020).
    One backward pass per task and batch."""
    max_rise: float | None = Field(None, ge=0)
    """The largest rise of another task's held-out loss over what it was before the training, in
    nats per token. Weights beyond it are not kept: the policy is that of the last held-out loss
    within it, the start at worst (it needs held_out.every). Null: no limit."""


class SFTConfig(Config):
    """How the SFT policy is trained."""

    tuning: TuningConfig = TuningConfig(method="full")
    """Which weights are trained."""
    max_length: int = Field(512, ge=8)
    """Longest conversation, in tokens; longer ones are left out, and counted."""
    loss_on: Literal["all_turns", "last_turn"] = "all_turns"
    """Which of the assistant's turns are learnt. last_turn serves dialogues that share their first
    turns, as growing dialogues do: each turn is then learnt once."""
    training: TrainingConfig = TrainingConfig(learning_rate=1e-3, epochs=2, batch_size=16)
    """How they are trained."""
    held_out: HeldOutConfig = HeldOutConfig()
    """What is done with the held-out loss during training: the best weights, and early stopping."""
    other_tasks: OtherTasksConfig = OtherTasksConfig()
    """How other tasks are trained along."""
    packing: bool = False
    """Put several conversations into one row of max_length tokens, none of which sees another. A
    batch then has batch_size such rows. Saves padding where lengths differ."""
    neftune_alpha: float | None = Field(None, gt=0)
    """NEFTune (Jain et al., 2023): noise on the embeddings in training, uniform within
    alpha / sqrt(tokens * width). The paper uses 5. Null: none."""
    wrong_answer_losses: tuple[Annotated[str, WRONG_ANSWER_LOSSES], ...] = ()
    """Losses over the wrong answers that demonstrations have, beside that of the right ones.
    T-Few has both. Empty: wrong answers are not learnt from."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it; the base
    model is the reference. Counts only where a harness is given."""

    @model_validator(mode="after")
    def _fits_together(self) -> SFTConfig:
        others = self.other_tasks
        needs = others.sampling == "dynamic" or others.max_rise is not None
        if needs and self.held_out.every is None:
            raise ValueError(
                "other_tasks.sampling: dynamic and other_tasks.max_rise look at held-out losses on "
                "the way, and there is none. Set held_out.every to a number of steps"
            )
        if self.wrong_answer_losses and (self.packing or others.gradients != "sum"):
            raise ValueError(
                "wrong_answer_losses compare the answers of a row, which packing and "
                "other_tasks.gradients: pcgrad take apart. Leave one of them out"
            )
        tokens = self.tuning.row.weights == "virtual tokens"
        if tokens and self.packing:
            raise ValueError(
                f"packing is on and tuning.method is {self.tuning.method}: virtual tokens would "
                "stand before the first conversation of a row alone. Leave packing out"
            )
        if self.tuning.row.is_cache and self.training.activation_checkpointing:
            raise ValueError(
                f"training.activation_checkpointing is on and tuning.method is "
                f"{self.tuning.method}, whose keys and values are a cache, which checkpointing "
                "drops. Leave one of the two out"
            )
        return self
