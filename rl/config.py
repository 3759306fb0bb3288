"""What may vary in proximal policy optimisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from plumbline.config import Config, without_effect
from plumbline.generation import SamplingConfig
from plumbline.models import TuningConfig


class KLConfig(Config):
    """The penalty that keeps the policy near its reference."""

    coefficient: float = Field(0.05, ge=0)
    """Reward lost for each nat of KL, at the start."""
    target: float | None = Field(None, gt=0)
    """KL (nats a response) that an adaptive coefficient steers towards. Null keeps it fixed."""
    horizon: int = Field(2000, ge=1)
    """Responses over which the adaptive coefficient reacts (Ziegler et al., 2019)."""


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al., 2017) for language models."""

    tuning: TuningConfig = TuningConfig(method="lora")
    """Which weights are trained. With an adapter, policy, reference and value share one base."""
    sampling: SamplingConfig = SamplingConfig()
    """How responses are drawn; log-probabilities are taken at the same temperature."""
    iterations: int = Field(40, ge=1)
    """Rounds of sampling and learning."""
    batch: int = Field(64, ge=2)
    """Prompts answered in each round."""
    minibatch: int = Field(32, ge=1)
    """Responses in one optimiser step; must divide batch."""
    micro_batch: int = without_effect(16, ge=1)
    """Most responses in one forward and backward pass. Smaller saves memory, and padding."""
    epochs: int = Field(2, ge=1)
    """Passes over the responses of a round."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of the policy."""
    value_learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of the value model."""
    schedule: Literal["linear", "constant"] = "linear"
    """How learning rates fall over the rounds: to nought, or not at all."""
    adam_epsilon: float = Field(1e-5, gt=0)
    """Adam's epsilon; larger than usual, as the first second-moment estimates are tiny."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, for each of the two models."""
    clip: float = Field(0.2, gt=0)
    """The policy's probability ratio is clipped to 1 - clip and 1 + clip."""
    value_clip: float = Field(0.2, gt=0)
    """A value may move by this much from where it was in the round before it is clipped."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of later rewards."""
    lam: float = Field(0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation: 1 trusts returns, 0 trusts values."""
    whiten_advantages: bool = True
    """Scale the advantages of a round to mean 0 and deviation 1."""
    missing_end_penalty: float = Field(1.0, ge=0)
    """Taken off the reward of a response that was cut before it ended."""
    reward_clip: float = Field(5.0, gt=0)
    """Rewards are clipped to this, in deviations of the reward model's scale."""
    kl: KLConfig = KLConfig()
    """The penalty for leaving the reference."""
    evaluations: int = Field(4, ge=0)
    """How often the harness judges the policy during training, besides once before it."""
    keep_checkpoints: bool = without_effect(True)
    """Keep the policy's weights at each of these evaluations."""
    checkpoint_every: int = without_effect(10, ge=1)
    """Rounds between two checkpoints to resume from."""

    @model_validator(mode="after")
    def _minibatches_fill_the_batch(self) -> PPOConfig:
        if self.batch % self.minibatch:
            raise ValueError(
                f"minibatch ({self.minibatch}) must divide batch ({self.batch}): a last partial "
                "minibatch would take a step as large as a full one"
            )
        return self
