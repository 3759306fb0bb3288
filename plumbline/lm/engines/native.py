"""Our own decode loop, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from plumbline.lm.adapters import using_adapter
from plumbline.lm.generation import Generation, SamplingConfig, ValueHead, generate
from plumbline.lm.policy import Policy
from plumbline.lm.precision import computes_in_bfloat16


class NativeEngine:
    """Samples with `plumbline.lm.generation.generate`, on the policy's own weights."""

    remote = False
    value_head: ValueHead | None = None
    """Asked for the value of every state on the way, which is then part of the response."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self._sampling = sampling
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.exact = not computes_in_bfloat16(sampling.precision, device)

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Do nothing: the weights are the policy's own."""

    def release(self) -> None:
        """Do nothing: what it needs is freed after each call."""

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
