"""Where responses come from: engines that sample from a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from plumbline.lm.generation import Generation, SamplingConfig, ValueHead, generate
from plumbline.lm.policy import Policy, using_adapter

if TYPE_CHECKING:
    from rl.config import RolloutConfig


class RolloutEngine(Protocol):
    """Samples from a policy whose weights change between rounds."""

    exact: bool
    """Whether its log-probabilities are those that training computes, up to rounding."""
    remote: bool
    """Whether it samples elsewhere, so that learning may go on meanwhile."""

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Take up the policy's weights as they are now."""
        ...

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt (as ids), in their order."""
        ...


class OwnEngine:
    """Our own decode loop, in this process."""

    remote = False
    value_head: ValueHead | None = None
    """Asked for the value of every state on the way, which is then part of the response."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self._sampling = sampling
        self.exact = getattr(sampling, "precision", "model") == "model"

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Do nothing: the weights are the policy's own."""

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt, each from the stream of its own seed."""
        with using_adapter(policy.model, policy.adapter):
            return generate(
                policy.model,
                prompts,
                seeds,
                self._sampling,
                end_ids=policy.end_ids,
                pad_id=policy.pad_id,
                value_head=self.value_head,
            )


def make_engine(config: RolloutConfig, sampling: SamplingConfig) -> RolloutEngine:
    """Return the engine that the config names."""
    if config.engine == "continuous":
        from rl.engines.continuous import ContinuousEngine

        return ContinuousEngine(sampling)
    if config.engine == "vllm":
        from rl.engines.vllm import VLLMEngine

        return VLLMEngine(config, sampling)
    return OwnEngine(sampling)
