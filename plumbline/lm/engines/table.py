"""The engines that ``rollouts.engine`` names, and what each can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plumbline.lm.engines.engine import RolloutEngine, Server
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.tuning_methods import TUNING_METHODS, TuningMethod
from plumbline.tables import Table


def _native(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    return NativeEngine(sampling)


def _continuous(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    from plumbline.lm.engines.continuous import ContinuousEngine

    return ContinuousEngine(sampling)


def _vllm(sampling: SamplingConfig, server: Server) -> RolloutEngine:
    from plumbline.lm.engines.vllm import VLLMEngine

    return VLLMEngine(sampling, server)


@dataclass(frozen=True)
class Engine:
    """One engine, and what it can do."""

    name: str
    make: Callable[[SamplingConfig, Server], RolloutEngine]
    is_server: bool = False
    """Whether it is reached at ``rollouts.url``, and takes weights as files."""
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
        if sampling.precision == "bfloat16" and not self.sets_precision:
            raise ValueError(
                f"sampling.precision is {sampling.precision!r}, which the engine {self.name} "
                "cannot set: continuous batching decodes in the model's own, and a vLLM server as "
                "it was started (--dtype). Leave sampling.precision out, or take "
                "rollouts.engine: native"
            )
        if self.is_server and url is None:
            raise ValueError(
                f"rollouts.engine is {self.name}; set rollouts.url to the server's address"
            )
        if self.is_server and not _reaches_a_server(tuning.row):
            raise ValueError(
                f"rollouts.engine is {self.name}, and tuning.method is {tuning.method}: weights "
                "reach the server as a LoRA adapter, or all of them. Set tuning.method to "
                f"{TUNING_METHODS.where(_reaches_a_server)}, or rollouts.engine to native or "
                "continuous"
            )


def _reaches_a_server(method: TuningMethod) -> bool:
    """Return whether a server can load what a method trains."""
    return "ppo" not in method.cannot and (method.low_rank or method.name == "full")


ENGINES = Table(
    "engine",
    [
        Engine("native", _native, filters=True, sets_precision=True),
        Engine("continuous", _continuous),
        Engine("vllm", _vllm, is_server=True),
    ],
    renamed={"own": "native"},
)
