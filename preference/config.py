"""What may vary in direct preference optimisation; pairs are in pairs_config.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from plumbline.config import Config, not_in_identity, only_when
from plumbline.lm.engines.config import EngineConfig
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.precision import Precision
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.config import TrainingConfig
from plumbline.training.optimizers import OPTIMIZERS
from preference.logprobs import DIVERGENCES, LossSettings
from preference.losses import LOSSES
from preference.pairs_config import PairFilterConfig, ScoredPairsConfig
from preference.unpaired_losses import UNPAIRED_LOSSES


class ReferenceConfig(Config):
    """What the policy is compared with: its own start, or a follower of it."""

    kind: Literal["cached", "computed", "moving"] = "cached"
    """cached: log-probabilities of the start, computed once and kept for other runs on the same
    pairs. computed: the same numbers in every step, by the adapter switched off, by a frozen copy
    of it or of the model. moving: a copy that follows the policy (TR-DPO)."""
    mixing: float = only_when(
        lambda config: config.kind == "moving", "kind: moving", 0.6, gt=0, le=1
    )
    """Share of the policy in an update: reference = mixing * policy + (1 - mixing) * reference."""
    every: int = only_when(lambda config: config.kind == "moving", "kind: moving", 64, ge=1)
    """Optimiser steps between two updates. With 1 it is a moving average, with mixing 1 the
    reference is replaced."""


class WatchConfig(Config):
    """When a training says that it goes astray. Null is silent; nothing else changes."""

    displaced_share: float | None = Field(0.5, gt=0, le=1)
    """Share of pairs whose chosen response became less likely while the margin grew."""
    saturated_share: float | None = Field(0.9, gt=0, le=1)
    """Share of pairs whose implied reward margin is so wide that they teach next to nothing."""
    kl: float | None = Field(30.0, gt=0)
    """KL of the policy's own responses to the reference, in nats, in an evaluation."""
    length_growth: float | None = Field(1.5, gt=1)
    """Tokens of the policy's responses in an evaluation, in those of the first one."""


def _reads(name: str) -> Callable[[Any], bool]:
    return lambda config: any(name in LOSSES[loss].uses for loss in config.losses)


def _needs(name: str) -> str:
    return f"loss: {LOSSES.where(lambda loss: name in loss.uses)}"


def _has_reference(config: LossConfig) -> bool:
    return any(LOSSES[loss].has_reference for loss in config.losses)


_REFERENCE = "a loss that compares with a reference, such as sigmoid"


class LossConfig(Config):
    """What a policy learns from pairs by, offline or from its own responses."""

    beta: float = Field(0.1, gt=0)
    """Weight of the implied KL penalty: smaller lets the policy move further."""
    loss: Annotated[str, LOSSES] = "sigmoid"
    """The loss of a pair (preference/losses.py); sigmoid is DPO as published."""
    mixture: dict[str, float] = Field({})
    """Losses that are added to it, each with its weight: ``{sft: 0.1}`` holds chosen responses
    likely."""
    label_smoothing: float = only_when(
        _reads("label_smoothing"), _needs("label_smoothing"), 0.0, ge=0, lt=0.5
    )
    """Assumed share of pairs whose label is wrong. With sigmoid this is conservative DPO."""
    target_margin: float = only_when(_reads("target_margin"), _needs("target_margin"), 0.0, ge=0)
    """Reward margin that a pair is to have: simpo's gamma, the offset of DPO."""
    divergence: Annotated[str, DIVERGENCES] = only_when(
        _reads("divergence"), _needs("divergence"), "reverse_kl"
    )
    """What holds the policy to its reference; reverse_kl is DPO's."""
    divergence_alpha: float = only_when(
        lambda config: DIVERGENCES[config.divergence].uses_alpha,
        f"divergence: {DIVERGENCES.where(lambda row: row.uses_alpha)}",
        0.5,
        gt=0,
    )
    """Order of the alpha-divergence."""
    ld_alpha: float | None = only_when(_has_reference, _REFERENCE, None, ge=0, le=1)
    """Weight of tokens behind the end of the shorter response (LD-DPO). Null and 1 count them
    in full."""
    discopop_tau: float = only_when(_reads("discopop_tau"), _needs("discopop_tau"), 0.05, gt=0)
    """Temperature of DiscoPOP's mixture."""
    dpop_lambda: float = only_when(_reads("dpop_lambda"), _needs("dpop_lambda"), 50.0, ge=0)
    """Penalty where the chosen response becomes less likely than under the reference."""
    alphapo_alpha: float = only_when(_reads("alphapo_alpha"), _needs("alphapo_alpha"), 0.25)
    """Shape of AlphaPO's reward; 0 is SimPO's."""
    orpo_lambda: float = only_when(_reads("orpo_lambda"), _needs("orpo_lambda"), 0.1, gt=0)
    """Weight of the odds ratio beside ORPO's SFT term."""

    @property
    def losses(self) -> dict[str, float]:
        """Every loss with its weight."""
        return {self.loss: 1.0, **self.mixture}

    @property
    def has_reference(self) -> bool:
        """Whether any of the losses compares with a reference."""
        return _has_reference(self)

    @property
    def loss_settings(self) -> LossSettings:
        """What the losses are told, before what a pair's row says."""
        names = set(LossSettings._fields) & set(type(self).model_fields)
        return LossSettings(**{name: getattr(self, name) for name in names})

    @field_validator("mixture")
    @classmethod
    def _losses_of_the_table(cls, mixture: dict[str, float]) -> dict[str, float]:
        for name, weight in mixture.items():
            if name not in LOSSES:
                raise ValueError(f"there is no {LOSSES.what} {name!r}. There are: {LOSSES.choices}")
            if not weight > 0:
                raise ValueError(f"the weight of {name} is {weight:g}; it must be above 0")
        return mixture

    @model_validator(mode="after")
    def _is_no_mixture_with_itself(self) -> LossConfig:
        if self.loss in self.mixture:
            raise ValueError(f"mixture has {self.loss}, which is the loss already")
        return self


class DPOConfig(LossConfig):
    """Direct preference optimisation (Rafailov et al., 2023) and its relatives."""

    soft_labels: str | None = only_when(_reads("label_smoothing"), _needs("label_smoothing"), None)
    """Column of probabilities that the chosen response is the better, in place of
    label_smoothing."""
    margins: str | None = only_when(_reads("target_margin"), _needs("target_margin"), None)
    """Column of graded labels, such as margin, by which target_margin is multiplied."""
    sample_weights: str | None = None
    """Column of numbers by which the loss of each pair is multiplied."""
    reference: ReferenceConfig = only_when(_has_reference, _REFERENCE, ReferenceConfig())
    """What the policy is compared with."""
    tuning: Annotated[TuningConfig, AfterValidator(for_use("preferences"))] = TuningConfig(
        method="lora"
    )
    """Which weights are trained."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its response, in tokens; longer pairs are left out, and counted."""
    training: TrainingConfig = TrainingConfig(learning_rate=5e-4, epochs=1, batch_size=16)
    """How they are trained."""
    watch: WatchConfig = not_in_identity(WatchConfig())
    """When a training says that it goes astray."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it."""
    keep_checkpoints: bool = only_when(
        lambda config: config.evaluations > 0, "evaluations above 0", True, in_identity=False
    )
    """Keep the policy's weights at each of these evaluations."""

    def problem_with_reference(self) -> str | None:
        """Return why a reference of its own cannot be used; None where it can."""
        if not self.has_reference:
            return (
                f"reference names a model, but the loss {self.loss} compares with no reference. "
                f"Leave it out, or take {_REFERENCE}"
            )
        if self.reference.kind == "moving":
            return (
                "reference names a model, but reference.kind: moving lets the reference follow the "
                "policy. Leave one of the two out"
            )
        return None

    @model_validator(mode="after")
    def _labels_are_possible(self) -> DPOConfig:
        smoothed = [name for name in self.losses if LOSSES[name].needs_smoothing]
        if smoothed and self.label_smoothing == 0 and self.soft_labels is None:
            raise ValueError(
                f"{smoothed[0]} compares with smoothed labels, and label_smoothing is 0, at which "
                "it is infinite. Set label_smoothing to 0.001"
            )
        hard = [name for name in self.losses if not LOSSES[name].takes_soft_labels]
        if self.soft_labels is not None and hard:
            raise ValueError(
                f"{hard[0]} is not defined for a label that is certain, or is as likely wrong as "
                "right, as soft labels may be. Set label_smoothing instead"
            )
        if self.soft_labels is not None and self.label_smoothing:
            raise ValueError(
                "soft_labels and label_smoothing both say how likely a label is wrong. Set one"
            )
        if self.margins is not None and self.target_margin == 0:
            raise ValueError(
                "margins multiply target_margin, which is 0, so that they have no effect. Set "
                "target_margin to the reward margin of a pair whose margin is 1"
            )
        return self


class KTOConfig(Config):
    """KTO (Ethayarajh et al., 2024) and its relatives, on responses that were liked or not."""

    loss: Annotated[str, UNPAIRED_LOSSES] = "kto"
    """The loss of a response (preference/unpaired_losses.py)."""
    beta: float = Field(0.1, gt=0)
    """Weight of the implied KL penalty: smaller lets the policy move further."""
    desirable_weight: float = Field(1.0, gt=0)
    """Weight of a response that was liked."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of one that was not. Where one side is rarer, give it more."""
    shift_decay: float = only_when(
        lambda config: UNPAIRED_LOSSES[config.loss].shift == "mean", "loss: bco", 0.9, ge=0, lt=1
    )
    """How slowly BCO's running mean of rewards follows those of a batch."""
    reference: ReferenceConfig = ReferenceConfig()
    """What the policy is compared with."""
    tuning: Annotated[TuningConfig, AfterValidator(for_use("preferences"))] = TuningConfig(
        method="lora"
    )
    """Which weights are trained."""
    max_length: int = Field(512, ge=8)
    """Longest prompt with its response, in tokens; longer ones are left out, and counted."""
    training: TrainingConfig = TrainingConfig(learning_rate=5e-4, epochs=1, batch_size=16)
    """How they are trained."""
    watch: WatchConfig = not_in_identity(WatchConfig())
    """When a training says that it goes astray."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it."""
    keep_checkpoints: bool = only_when(
        lambda config: config.evaluations > 0, "evaluations above 0", True, in_identity=False
    )
    """Keep the policy's weights at each of these evaluations."""

    @property
    def has_reference(self) -> bool:
        """Every loss here compares with one."""
        return True

    @property
    def has_kl(self) -> bool:
        """Whether the loss compares rewards with an estimate of the KL."""
        return UNPAIRED_LOSSES[self.loss].shift == "kl"


class OnlineConfig(LossConfig, ScoredPairsConfig):
    """Rounds with a reward model in the loop: sample, score, pair, learn.

    With many rounds of one step each this is online DPO; with few rounds, a pass or more over each
    and ``reference_every: 1``, iterative DPO; with ``loss: sft``, training on the best of n.
    """

    rounds: int = only_when(
        lambda config: config.max_sampled_tokens is None, "max_sampled_tokens: null", 60, ge=1
    )
    """Rounds of sampling and learning."""
    max_sampled_tokens: int | None = Field(None, ge=1)
    """Tokens of responses that the training samples in all: the last response is cut where they
    end, so that methods can be compared at exactly the same number. Null: rounds decides."""
    max_kl: float | None = Field(None, gt=0)
    """KL (nats per response) from its start at which training ends, with the last policy that was
    within. Null: none."""
    prompts_per_round: int = Field(16, ge=1)
    """Prompts of each round."""
    responses: int = Field(4, ge=2)
    """Responses that the policy samples to each of them."""
    sampling: SamplingConfig = SamplingConfig()
    """How they are drawn."""
    rollouts: EngineConfig = EngineConfig()
    """Which engine draws them."""
    filter: PairFilterConfig = PairFilterConfig()
    """Which pairs are left out before their scores are compared."""
    missing_eos_penalty: float = Field(0.0, ge=0)
    """Subtracted from the score of a response that was cut."""
    epochs: int = Field(1, ge=1)
    """Passes over the pairs of a round."""
    minibatch_size: int = Field(16, ge=1)
    """Pairs behind one optimiser step."""
    reference_every: int | None = only_when(_has_reference, _REFERENCE, None, ge=1)
    """Rounds after which the policy becomes its reference. Null: the start stays it."""
    learning_rate: float = Field(2e-4, gt=0)
    """Learning rate of AdamW in the first round."""
    schedule: Literal["linear", "constant"] = "linear"
    """How it falls from round to round."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    optimizer: Annotated[str, OPTIMIZERS] = "adamw"
    """How AdamW holds its moments; as in training.optimizer."""
    precision: Precision = "auto"
    """Number format of learning; as in ppo.precision."""
    tuning: Annotated[TuningConfig, AfterValidator(for_use("preferences"))] = TuningConfig(
        method="lora"
    )
    """Which weights are trained."""
    watch: WatchConfig = not_in_identity(WatchConfig())
    """When a training says that it goes astray."""
    report_to: tuple[str, ...] = not_in_identity(())
    """Trackers that transformers knows, such as tensorboard or wandb. None by default."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it."""
    keep_checkpoints: bool = only_when(
        lambda config: config.evaluations > 0, "evaluations above 0", True, in_identity=False
    )
    """Keep the policy's weights at each of these evaluations."""
    checkpoint_every: int = not_in_identity(5, ge=1)
    """Rounds between two checkpoints to resume from."""

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> OnlineConfig:
        self.rollouts.row.check(self.rollouts.url, self.sampling, self.tuning)
        return self
