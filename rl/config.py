"""What may vary in proximal policy optimisation and its relatives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from plumbline.config import Config, not_in_identity
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig

Estimator = Literal["gae", "rloo", "grpo", "dr_grpo", "group_mean", "reinforce_pp"]

#: Which estimators compare a response with others to the same prompt.
GROUPED: tuple[Estimator, ...] = ("rloo", "grpo", "dr_grpo", "group_mean")


class AdvantageConfig(Config):
    """How much better than expected a token was."""

    estimator: Estimator = "gae"
    """gae: a value model (PPO). rloo, grpo, dr_grpo, group_mean: other responses to the same
    prompt. reinforce_pp: the mean over the batch."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of later rewards (gae, reinforce_pp)."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation: 1 trusts returns, 0 trusts values."""
    whiten: bool | None = None
    """Scale a round's advantages to mean 0 and deviation 1. Null: for gae and reinforce_pp."""

    @property
    def whitens(self) -> bool:
        """Whether advantages are whitened."""
        return self.estimator in ("gae", "reinforce_pp") if self.whiten is None else self.whiten


class LossConfig(Config):
    """How the policy is moved along the advantages."""

    kind: Literal["clip", "cispo", "gspo"] = "clip"
    """clip: PPO's clipped surrogate. cispo: clipped weights, so that no token loses its gradient.
    gspo: one ratio for a whole response."""
    clip_low: float = Field(0.2, gt=0)
    """The ratio of new to old probability is clipped below at 1 - clip_low."""
    clip_high: float | None = Field(None, gt=0)
    """And above at 1 + clip_high. Null: the same as clip_low."""
    dual_clip: float | None = Field(None, gt=1)
    """Most that a token with a negative advantage may cost, in advantages (kind clip)."""
    reduction: Literal["token_mean", "sequence_mean", "constant"] | None = None
    """What losses are averaged over: tokens, responses, or the most tokens that a turn may have.
    Null: as the estimator's paper has it (grpo and gspo: sequence_mean; dr_grpo: constant)."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy that is added to what is maximised."""
    off_policy_cap: float = Field(2.0, ge=1)
    """Where the responses come from other weights or another precision: the most that a token's
    importance weight may be."""

    @property
    def clip_above(self) -> float:
        """The upper clip."""
        return self.clip_low if self.clip_high is None else self.clip_high


class ValueConfig(Config):
    """The value model (estimator gae)."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    clip: float | None = Field(0.2, gt=0)
    """A value may move by this much from where it was in the round before it is clipped. Null: the
    loss is not clipped."""
    start: Literal["policy", "reward"] = "policy"
    """Weights that the value model starts from. reward: the reward model's, which must be an
    adapter on the same base."""
    head: Literal["zeros", "normal"] = "zeros"
    """The head's first weights. normal: deviation 1 / sqrt(width + 1) (Huang et al., 2024)."""
    trunk: Literal["own", "shared"] = "own"
    """shared: the value is a head on the policy's own last layer, and one pass serves both."""
    coefficient: float = Field(0.1, gt=0)
    """Weight of the value loss beside the policy's (trunk shared)."""
    warm_up: int = Field(0, ge=0)
    """Rounds at the start in which only the value model learns."""


class KLConfig(Config):
    """What keeps the policy near its reference."""

    coefficient: float = Field(0.05, ge=0)
    """Reward, or loss, for each nat of KL, at the start."""
    place: Literal["reward", "loss"] | None = None
    """Where it is paid. Null: in the loss for grpo, dr_grpo and group_mean, else in the reward."""
    estimator: Literal["k1", "k2", "k3"] | None = None
    """How KL is estimated. Null: k1 in the reward, k3 in the loss."""
    target: float | None = Field(None, gt=0)
    """KL (nats a response) that an adaptive coefficient steers towards. Null keeps it fixed."""
    horizon: int = Field(2000, ge=1)
    """Responses over which the adaptive coefficient reacts (Ziegler et al., 2019)."""
    budget: float | None = Field(None, gt=0)
    """KL (nats a response) at which training ends, with the last policy that was within. To the
    reference as it is: one that follows hardly leaves any."""
    reference_decay: float | None = Field(None, gt=0, lt=1)
    """Let the reference follow the policy: after each round, decay * reference + (1 - decay) *
    policy. Null: it stays what it was. KL is measured to the reference as it is."""


class ShapingConfig(Config):
    """From scores to rewards."""

    clip: float | None = Field(5.0, gt=0)
    """Scores are clipped to this, in deviations of the reward model's scale. Null: not clipped."""
    whiten: bool = False
    """Scale a round's scores to mean 0 and deviation 1. Rewards come calibrated, so off."""
    unfinished: Literal["penalize", "replace", "reject", "keep"] = "penalize"
    """What becomes of a response that was cut before it ended: it pays the penalty, gets minus the
    penalty as its reward, leaves the loss, or nothing."""
    penalty: float = Field(1.0, ge=0)
    """See unfinished."""
    stop_at: str | None = None
    """A text of one token at which responses are cut, besides the end token."""


class GuardConfig(Config):
    """What stops training from going wrong in silence."""

    log_ratio: float | None = Field(20.0, gt=0)
    """A token whose log-probability moved by more than this since it was drawn is a spike."""
    update_kl: float | None = Field(1.0, gt=0)
    """So is a minibatch whose policy is further than this from the one that drew it, in nats a
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


class RolloutConfig(Config):
    """How responses come about."""

    engine: Literal["own", "continuous", "vllm"] = "own"
    """own: our decode loop. continuous: transformers' continuous batching. vllm: a vLLM server."""
    url: str | None = None
    """The vLLM server's address, such as http://127.0.0.1:8000."""
    model: str | None = None
    """The name under which that server has the policy's base. Null: the base's own name or path."""
    adapters: Path | None = not_in_identity(None)
    """A folder that this process writes adapters to and the server reads them from, at the same
    path. Null: a temporary one, which a server on the same machine can read."""
    steps_behind: Literal[0, 1] = 0
    """1: a round's responses are drawn by the policy of the round before, while that one learns.
    The importance of each token is corrected."""
    recompute_logprobs: bool | None = None
    """Compute the log-probabilities of what was drawn anew, as training would. Null: only where
    the engine's are not those of training (another precision, another server, a step behind)."""


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al., 2017) for language models, and relatives."""

    tuning: TuningConfig = TuningConfig(method="lora")
    """Which weights are trained. With an adapter, all roles share one base."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn; log-probabilities are taken at the same temperature."""
    rollouts: RolloutConfig = RolloutConfig()
    """How responses come about."""
    precision: Literal["model", "bfloat16"] = "model"
    """Arithmetic of learning and judging. bfloat16: matrix products in bfloat16 over the weights as
    they are held, optimiser states and losses in float32. See sampling.precision, too."""
    iterations: int = Field(40, ge=1)
    """Rounds of sampling and learning."""
    batch: int = Field(64, ge=2)
    """Responses in each round."""
    group: int = Field(1, ge=1)
    """Responses to each prompt; must divide batch."""
    minibatch: int = Field(32, ge=1)
    """Responses in one optimiser step; must divide batch."""
    micro_batch: int = not_in_identity(16, ge=1)
    """Most responses in one forward and backward pass. Smaller saves memory, and padding."""
    epochs: int = Field(2, ge=1)
    """Passes over the responses of a round."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of the policy."""
    schedule: Literal["linear", "constant"] = "linear"
    """How learning rates fall over the rounds: to nought, or not at all."""
    adam_epsilon: float = Field(1e-5, gt=0)
    """Adam's epsilon; larger than usual, as the first second-moment estimates are tiny."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, for each of the two models."""
    advantage: AdvantageConfig = AdvantageConfig()
    """How advantages are estimated."""
    loss: LossConfig = LossConfig()
    """The policy's loss."""
    value: ValueConfig = ValueConfig()
    """The value model."""
    shaping: ShapingConfig = ShapingConfig()
    """From scores to rewards."""
    kl: KLConfig = KLConfig()
    """The penalty for leaving the reference."""
    guards: GuardConfig = GuardConfig()
    """What stops or warns."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it. 0: not at
    all."""
    keep_checkpoints: bool = not_in_identity(True)
    """Keep the policy's weights at each of these evaluations."""
    checkpoint_every: int = not_in_identity(10, ge=1)
    """Rounds between two checkpoints to resume from."""

    @property
    def has_values(self) -> bool:
        """Whether there is a value model."""
        return self.advantage.estimator == "gae"

    @property
    def kl_in_loss(self) -> bool:
        """Whether the KL penalty is part of the loss, and not of the reward."""
        if self.kl.place is not None:
            return self.kl.place == "loss"
        return self.advantage.estimator in ("grpo", "dr_grpo", "group_mean")

    @property
    def kl_estimator(self) -> Literal["k1", "k2", "k3"]:
        """The estimator of KL in the penalty."""
        return self.kl.estimator or ("k3" if self.kl_in_loss else "k1")

    @property
    def reduction(self) -> Literal["token_mean", "sequence_mean", "constant"]:
        """What the policy's loss is averaged over."""
        if self.loss.reduction is not None:
            return self.loss.reduction
        if self.advantage.estimator == "dr_grpo":
            return "constant"
        by_response = self.advantage.estimator == "grpo" or self.loss.kind == "gspo"
        return "sequence_mean" if by_response else "token_mean"

    @model_validator(mode="after")
    def _batches_are_whole(self) -> PPOConfig:
        if self.batch % self.minibatch:
            raise ValueError(
                f"minibatch ({self.minibatch}) must divide batch ({self.batch}): a last partial "
                "minibatch would take a step as large as a full one"
            )
        if self.batch % self.group:
            raise ValueError(
                f"group ({self.group}) must divide batch ({self.batch}): a partial group has "
                "another baseline"
            )
        grouped = self.advantage.estimator in GROUPED
        if grouped and self.group < 2:
            raise ValueError(
                f"advantage.estimator is {self.advantage.estimator!r}, which compares responses to "
                "the same prompt, but group is 1. Set group to 2 or more, such as 8"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> PPOConfig:
        if self.kl_in_loss and self.kl_estimator == "k1" and self.kl.coefficient > 0:
            raise ValueError(
                "kl.estimator is k1 and the penalty is in the loss: the gradient of k1 is nought "
                "on average, so it would only add noise. Take k2 or k3, or kl.place: reward"
            )
        if self.kl.target is not None and self.kl.coefficient == 0:
            raise ValueError(
                f"kl.target is {self.kl.target:g}, towards which kl.coefficient is multiplied, but "
                "it starts at 0 and would stay there. Start it above 0, such as 0.05, or leave "
                "kl.target out"
            )
        if self.kl.target is not None and self.batch >= 5 * self.kl.horizon:
            raise ValueError(
                f"kl.horizon is {self.kl.horizon} and batch {self.batch}: a single round below "
                "kl.target would make kl.coefficient nought or less. Set kl.horizon above a fifth "
                "of batch"
            )
        if self.value.start == "reward" and self.value.head == "normal":
            raise ValueError(
                "value.head is normal, but with value.start: reward the head is the reward "
                "model's. Leave value.head out"
            )
        if self.loss.dual_clip is not None and self.loss.kind != "clip":
            raise ValueError(f"loss.dual_clip belongs to kind clip, but kind is {self.loss.kind!r}")
        if self.value.trunk == "shared" and self.value.start == "reward":
            raise ValueError(
                "value.trunk is shared, so the value model starts as the policy; leave "
                "value.start at policy"
            )
        if self.value.trunk == "shared" and self.value.warm_up:
            raise ValueError(
                "value.warm_up trains the value model alone, which value.trunk: shared cannot: "
                "the policy would move with it"
            )
        if self.rollouts.engine == "vllm" and self.rollouts.url is None:
            raise ValueError("rollouts.engine is vllm; set rollouts.url to the server's address")
        return self
