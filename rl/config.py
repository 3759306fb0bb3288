"""What may vary in proximal policy optimisation and its relatives."""

from __future__ import annotations

from math import gcd
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from plumbline.config import Config, not_in_identity, only_when
from plumbline.lm.engines.config import EngineConfig
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.precision import Precision
from plumbline.lm.tuning import TuningConfig, for_use
from plumbline.training.optimizers import OPTIMIZERS
from rl.advantages import ADVANTAGE_ESTIMATORS, AdvantageEstimator, EstimatorSettings
from rl.kl import KL_ESTIMATORS
from rl.losses import POLICY_LOSSES, REDUCTIONS, Clip
from rl.shaping import MISSING_EOS


class AdvantageConfig(Config):
    """How much better than expected a token was."""

    estimator: Annotated[str, ADVANTAGE_ESTIMATORS] = "gae"
    """gae: a value model (PPO). rloo, grpo, dr_grpo, group_mean: other responses to the same
    prompt. reinforce_pp: the mean over the batch."""
    gamma: float = only_when(
        lambda advantage: "gamma" in ADVANTAGE_ESTIMATORS[advantage.estimator].reads,
        f"estimator: {ADVANTAGE_ESTIMATORS.where(lambda row: 'gamma' in row.reads)}",
        1.0,
        gt=0,
        le=1,
    )
    """Discount of later rewards."""
    lam: float = only_when(
        lambda advantage: "lam" in ADVANTAGE_ESTIMATORS[advantage.estimator].reads,
        f"estimator: {ADVANTAGE_ESTIMATORS.where(lambda row: 'lam' in row.reads)}",
        0.95,
        ge=0,
        le=1,
    )
    """Lambda of generalised advantage estimation: 1 trusts returns, 0 trusts values."""
    whiten: bool | None = None
    """Scale a round's advantages to mean 0 and standard deviation 1. Null: for gae and
    reinforce_pp."""

    @property
    def whitens(self) -> bool:
        """Whether advantages are whitened."""
        if self.whiten is not None:
            return self.whiten
        return ADVANTAGE_ESTIMATORS[self.estimator].whitens


class LossConfig(Config):
    """How the policy is moved along the advantages."""

    kind: Annotated[str, POLICY_LOSSES] = "clip"
    """clip: PPO's clipped surrogate. cispo: clipped weights, so that no token loses its gradient.
    gspo: one ratio for a whole response."""
    clip_low: float = Field(0.2, gt=0)
    """The ratio of new to old probability is clipped below at 1 - clip_low."""
    clip_high: float | None = Field(None, gt=0)
    """And above at 1 + clip_high. Null: the same as clip_low."""
    dual_clip: float | None = only_when(
        lambda loss: POLICY_LOSSES[loss.kind].has_dual_clip,
        f"kind: {POLICY_LOSSES.where(lambda row: row.has_dual_clip)}",
        None,
        gt=1,
    )
    """Most that a token with a negative advantage may cost, in advantages."""
    reduction: Annotated[str | None, REDUCTIONS] = None
    """What losses are averaged over: tokens, responses, or (fixed_length) the most tokens that a
    turn may have. Null: as the paper has it (grpo and gspo: sequence_mean; dr_grpo:
    fixed_length; others: token_mean)."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy that is added to what is maximised."""

    @property
    def clip(self) -> Clip:
        """The clips, as losses take them."""
        high = self.clip_low if self.clip_high is None else self.clip_high
        return Clip(self.clip_low, high, self.dual_clip)


class ValueConfig(Config):
    """The value model (estimator gae)."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    clip: float | None = Field(0.2, gt=0)
    """A value may move by this much from where it was in the round before it is clipped. Null: the
    loss is not clipped."""
    trunk: Literal["own", "shared"] = "own"
    """shared: the value is a head on the policy's own last layer, and one pass serves both."""
    start: Literal["policy", "reward"] = only_when(
        lambda value: value.trunk == "own", "trunk: own", "policy"
    )
    """Weights that the value model starts from. reward: the reward model's, which must be an
    adapter on the same base."""
    head: Literal["zeros", "normal"] = only_when(
        lambda value: value.start == "policy", "start: policy", "zeros"
    )
    """The head's first weights. normal: standard deviation 1 / sqrt(width + 1) (Huang et al.,
    2024)."""
    coefficient: float = only_when(
        lambda value: value.trunk == "shared", "trunk: shared", 0.1, gt=0
    )
    """Weight of the value loss beside the policy's."""
    warm_up: int = only_when(lambda value: value.trunk == "own", "trunk: own", 0, ge=0)
    """Rounds at the start in which only the value model learns."""


class KLConfig(Config):
    """What keeps the policy near its reference."""

    renamed: ClassVar = {"place": "apply_to", "budget": "max_kl"}

    coefficient: float = Field(0.05, ge=0)
    """Reward, or loss, for each nat of KL, at the start."""
    apply_to: Literal["reward", "loss"] | None = only_when(
        lambda kl: kl.coefficient > 0, "coefficient above 0", None
    )
    """Where the penalty is paid. Null: in the loss for grpo, dr_grpo and group_mean, else in the
    reward."""
    estimator: Annotated[str | None, KL_ESTIMATORS] = only_when(
        lambda kl: kl.coefficient > 0, "coefficient above 0", None
    )
    """How KL is estimated in the penalty. Null: k1 in the reward, k3 in the loss."""
    target: float | None = Field(None, gt=0)
    """KL (nats per response) that an adaptive coefficient steers towards. Null keeps it fixed."""
    horizon: int = only_when(lambda kl: kl.target is not None, "target", 2000, ge=1)
    """Responses over which the adaptive coefficient reacts (Ziegler et al., 2019)."""
    max_kl: float | None = Field(None, gt=0)
    """KL (nats per response) at which training ends, with the last policy that was within. To the
    reference as it is: one that follows the policy is hardly ever left so far behind."""
    reference_decay: float | None = Field(None, gt=0, lt=1)
    """Let the reference follow the policy: after each round, decay * reference + (1 - decay) *
    policy. Null: it stays what it was. KL is measured to the reference as it is."""


class ShapingConfig(Config):
    """From scores to rewards."""

    renamed: ClassVar = {"unfinished": "missing_eos", "penalty": "missing_eos_penalty"}

    clip: float | None = Field(5.0, gt=0)
    """Scores are clipped to this, in standard deviations of the reward model's scale. Null: not
    clipped."""
    whiten: bool = False
    """Scale a round's scores to mean 0 and standard deviation 1. Off, since rewards come
    calibrated."""
    missing_eos: Annotated[str, MISSING_EOS] = "penalize"
    """What becomes of a response that was cut before its end token. penalize: it pays the penalty.
    replace: its reward is minus the penalty. reject: it leaves the loss. keep: nothing."""
    missing_eos_penalty: float = only_when(
        lambda shaping: MISSING_EOS[shaping.missing_eos].has_penalty,
        f"missing_eos: {MISSING_EOS.where(lambda row: row.has_penalty)}",
        1.0,
        ge=0,
    )
    """See missing_eos."""
    stop_at: str | None = None
    """A text of one token at which responses are cut, besides the end token."""


class GuardConfig(Config):
    """What stops training from going wrong in silence."""

    renamed: ClassVar = {"update_kl": "approx_kl"}

    log_ratio: float | None = Field(20.0, gt=0)
    """A token whose log-probability moved by more than this since it was drawn is a spike."""
    approx_kl: float | None = Field(1.0, gt=0)
    """So is a minibatch whose policy is further than this from the one that drew it, in nats per
    token (k3, mean)."""
    action: Literal["skip", "stop"] = "skip"
    """What a spike does: the step is not taken, or training ends with an error. Either way the
    round's responses are written to traces/."""
    length_drift: float = Field(2.0, gt=1)
    """Warn where responses are this many times as long, or as short, as at the start."""
    repetition: float = Field(0.2, gt=0, le=1)
    """Warn where the share of repeated 4-grams has grown by this much."""
    entropy_collapse: float = Field(0.25, gt=0, lt=1)
    """Warn where the entropy is less than this share of what it was at the start."""
    window: int = Field(5, ge=1)
    """Rounds that are averaged before they are compared with the first ones."""


class RolloutConfig(EngineConfig):
    """How responses are sampled."""

    renamed: ClassVar = {"steps_behind": "max_staleness"}

    max_staleness: Literal[0, 1] = 0
    """1: a round's responses are sampled by the policy of the round before, while that one learns.
    Importance weights correct for it."""
    recompute_logprobs: bool | None = None
    """Compute the log-probabilities of sampled responses again, as training does. Null: only where
    the engine's differ from those of training (another precision, a server, stale weights)."""
    max_importance_weight: float = only_when(
        lambda rollouts: rollouts.recompute_logprobs is not False,
        "recompute_logprobs: null or true",
        2.0,
        ge=1,
    )
    """The most that the importance weight of a token may be, where responses are sampled with other
    weights or in another precision."""


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al., 2017) for language models, and relatives."""

    renamed: ClassVar = {
        "batch": "batch_size",
        "group": "group_size",
        "minibatch": "minibatch_size",
        "micro_batch": "micro_batch_size",
        "epochs": "ppo_epochs",
        "loss.off_policy_cap": "rollouts.max_importance_weight",
    }

    tuning: Annotated[TuningConfig, AfterValidator(for_use("ppo"))] = TuningConfig(method="lora")
    """Which weights are trained. With an adapter, all roles share one base."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn; log-probabilities are taken at the same temperature."""
    rollouts: RolloutConfig = RolloutConfig()
    """How responses are sampled."""
    precision: Precision = "auto"
    """Arithmetic of learning and scoring. bfloat16: matrix products in bfloat16 over the weights as
    they are held, optimiser states and losses in float32. auto: bfloat16 on a GPU that has it. See
    sampling.precision, too."""
    iterations: int = Field(40, ge=1)
    """Rounds of sampling and learning."""
    batch_size: int = Field(64, ge=2)
    """Responses in each round."""
    group_size: int = Field(1, ge=1)
    """Responses to each prompt; must divide batch_size."""
    minibatch_size: int = Field(32, ge=1)
    """Responses in one optimiser step; must divide batch_size."""
    micro_batch_size: int = not_in_identity(16, ge=1)
    """On a CPU: most responses in one forward and backward pass. Smaller saves memory, and
    padding."""
    micro_batch_tokens: int | None = not_in_identity(None, ge=1)
    """On a GPU: most tokens in one pass, prompts included. Null: as many as its memory holds."""
    activation_checkpointing: bool = not_in_identity(False)
    """On a GPU: compute activations again in backward passes. Less memory, a third more time."""
    optimizer: Annotated[str, OPTIMIZERS] = "adamw"
    """How AdamW holds its moments: in 32 or 8 bits, on the GPU or paged out where it is full. All
    but adamw need bitsandbytes."""
    ppo_epochs: int = Field(2, ge=1)
    """Passes over the responses of a round."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of the policy."""
    schedule: Literal["linear", "constant"] = "linear"
    """How learning rates fall over the rounds: to 0, or not at all."""
    adam_epsilon: float = Field(1e-5, gt=0)
    """Adam's epsilon; larger than usual, as the first second-moment estimates are tiny."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, for each of the two models."""
    advantage: AdvantageConfig = AdvantageConfig()
    """How advantages are estimated."""
    loss: LossConfig = LossConfig()
    """The policy's loss."""
    value: ValueConfig = only_when(
        lambda ppo: ppo.has_values,
        f"advantage.estimator: {ADVANTAGE_ESTIMATORS.where(lambda row: row.has_values)}",
        ValueConfig(),
    )
    """The value model."""
    shaping: ShapingConfig = ShapingConfig()
    """From scores to rewards."""
    kl: KLConfig = KLConfig()
    """The penalty for leaving the reference."""
    guards: GuardConfig = GuardConfig()
    """What stops or warns."""
    report_to: tuple[str, ...] = not_in_identity(())
    """Trackers that transformers knows, such as tensorboard or wandb. None by default."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it. 0: not at
    all."""
    keep_checkpoints: bool = only_when(
        lambda ppo: ppo.evaluations > 0, "evaluations above 0", True, in_identity=False
    )
    """Keep the policy's weights at each of these evaluations."""
    checkpoint_every: int = not_in_identity(10, ge=1)
    """Rounds between two checkpoints to resume from."""

    @property
    def estimator(self) -> AdvantageEstimator:
        """The estimator of advantages."""
        return ADVANTAGE_ESTIMATORS[self.advantage.estimator]

    @property
    def estimator_settings(self) -> EstimatorSettings:
        """What it may read."""
        return EstimatorSettings(self.advantage.gamma, self.advantage.lam, self.group_size)

    @property
    def has_values(self) -> bool:
        """Whether there is a value model."""
        return self.estimator.has_values

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL penalty is part of the loss, and not of the reward."""
        return (self.kl.apply_to or self.estimator.kl_applies_to) == "loss"

    @property
    def kl_estimator(self) -> str:
        """The estimator of KL in the penalty."""
        return self.kl.estimator or ("k3" if self.kl_in_loss else "k1")

    @property
    def reduction(self) -> str:
        """What the policy's loss is averaged over."""
        by_paper = self.estimator.reduction or POLICY_LOSSES[self.loss.kind].reduction
        return self.loss.reduction or by_paper

    @model_validator(mode="after")
    def _batches_are_whole(self) -> PPOConfig:
        if self.batch_size % self.minibatch_size:
            raise ValueError(
                f"minibatch_size ({self.minibatch_size}) must divide batch_size "
                f"({self.batch_size}): a last partial minibatch would take a step as large as a "
                f"full one. Set minibatch_size to {gcd(self.batch_size, self.minibatch_size)}, "
                "or to another divisor"
            )
        if self.batch_size % self.group_size:
            raise ValueError(
                f"group_size ({self.group_size}) must divide batch_size ({self.batch_size}): a "
                "partial group has another baseline. Set batch_size to "
                f"{-(-self.batch_size // self.group_size) * self.group_size}, or to another "
                f"multiple of {self.group_size}"
            )
        if self.estimator.grouped and self.group_size < 2:
            raise ValueError(
                f"advantage.estimator is {self.advantage.estimator!r}, which compares responses to "
                "the same prompt, but group_size is 1. Set group_size to 2 or more, such as 8"
            )
        return self

    @model_validator(mode="after")
    def _penalty_has_an_effect(self) -> PPOConfig:
        estimator = KL_ESTIMATORS[self.kl_estimator]
        if self.kl_in_loss and not estimator.has_gradient and self.kl.coefficient > 0:
            raise ValueError(
                f"kl.estimator is {estimator.name} and the penalty is in the loss: the gradient of "
                f"{estimator.name} is 0 on average, so it would only add noise. Take k2 or k3, or "
                "kl.apply_to: reward"
            )
        if self.kl.target is not None and self.kl.coefficient == 0:
            raise ValueError(
                f"kl.target is {self.kl.target:g}, towards which kl.coefficient is multiplied, but "
                "it starts at 0 and would stay there. Start it above 0, such as 0.05, or leave "
                "kl.target out"
            )
        if self.kl.target is not None and self.batch_size >= 5 * self.kl.horizon:
            raise ValueError(
                f"kl.horizon is {self.kl.horizon} and batch_size {self.batch_size}: a single round "
                "below kl.target would make kl.coefficient 0 or less. Set kl.horizon above a fifth "
                "of batch_size"
            )
        return self

    @model_validator(mode="after")
    def _engine_can_do_it(self) -> PPOConfig:
        self.rollouts.row.check(self.rollouts.url, self.sampling, self.tuning)
        return self

    @model_validator(mode="after")
    def _values_can_start_so(self) -> PPOConfig:
        if self.has_values and self.value.start == "reward" and not self.tuning.has_adapter:
            raise ValueError(
                "value.start is reward, which copies an adapter, but tuning.method is "
                f"{self.tuning.method}. Leave "
                "value.start at policy, or set tuning.method to lora"
            )
        return self
