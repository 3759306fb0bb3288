"""Where responses come from: engines that sample from a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from plumbline.lm.generation import Generation, SamplingConfig, ValueHead, generate
from plumbline.lm.policy import Policy, using_adapter
from plumbline.lm.tuning import TuningConfig
from plumbline.tables import Table


class Server(NamedTuple):
    """A server that samples; what the settings of the same names say."""

    url: str | None
    model: str | None
    adapters: Path | None


class RolloutEngine(Protocol):
    """Samples from a policy whose weights change between rounds."""

    exact: bool
    """Whether its log-probabilities are those that training computes, up to rounding."""
    remote: bool
    """Whether it samples elsewhere, so that the policy may learn at the same time."""

    def refresh(self, policy: Policy, iteration: int) -> None:
        """Take over the policy's weights as they are now."""
        ...

    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], seeds: Sequence[int]
    ) -> list[Generation]:
        """Return one response to each prompt (as ids), in their order."""
        ...


class NativeEngine:
    """Our own decode loop, in this process."""

    remote = False
    value_head: ValueHead | None = None
    """Asked for the value of every state on the way, which is then part of the response."""

    def __init__(self, sampling: SamplingConfig) -> None:
        self._sampling = sampling
        self.exact = sampling.precision == "model"

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


def _native(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    return NativeEngine(sampling)


def _continuous(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    from rl.engines.continuous import ContinuousEngine

    return ContinuousEngine(sampling)


def _vllm(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    from rl.engines.vllm import VLLMEngine

    return VLLMEngine(sampling, server)


@dataclass(frozen=True)
class Engine:
    """One engine, and what it can do."""

    name: str
    make: Callable[[SamplingConfig, Server], RolloutEngine]
    is_server: bool = False
    """Whether it is reached at ``rollouts.url``, and takes weights as adapters."""
    filters: bool = False
    """Whether it may sample with top-k and top-p, and still give log-probabilities before them."""
    sets_precision: bool = False
    """Whether ``sampling.precision`` may be other than the model's."""

    def check(self, url: str | None, sampling: SamplingConfig, tuning: TuningConfig) -> None:
        """Raise `ValueError` where other settings ask for what the engine cannot do."""
        for name, value in (("top_k", sampling.top_k), ("top_p", sampling.top_p)):
            if value is not None and not self.filters:
                raise ValueError(
                    f"sampling.{name} is {value}, but the engine {self.name} gives "
                    "log-probabilities of the filtered distribution, by which no importance can be "
                    f"corrected. Leave sampling.{name} out (a lower temperature does much the "
                    "same), or take rollouts.engine: native"
                )
        if sampling.precision != "model" and not self.sets_precision:
            raise ValueError(
                f"sampling.precision is {sampling.precision!r}, which the engine {self.name} "
                "cannot set: continuous batching decodes in the model's own, and a vLLM server as "
                "it was started (--dtype). Leave sampling.precision at model, or take "
                "rollouts.engine: native"
            )
        if self.is_server and url is None:
            raise ValueError(
                f"rollouts.engine is {self.name}; set rollouts.url to the server's address"
            )
        if self.is_server and tuning.method == "full":
            raise ValueError(
                f"rollouts.engine is {self.name}, and tuning.method is full: weights reach the "
                "server as an adapter, and with full tuning there is none. Set tuning.method to "
                "lora, or rollouts.engine to native or continuous"
            )


ENGINES = Table(
    "engine",
    [
        Engine("native", _native, filters=True, sets_precision=True),
        Engine("continuous", _continuous),
        Engine("vllm", _vllm, is_server=True),
    ],
    renamed={"own": "native"},
)
