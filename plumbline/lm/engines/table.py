"""The engines that ``rollouts.engine`` names, and what each can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plumbline.lm.engines.engine import EngineSettings, RolloutEngine
from plumbline.lm.engines.native import NativeEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.lm.tuning_methods import TUNING_METHODS, TuningMethod
from plumbline.tables import Table


def _native(sampling: SamplingConfig, rollouts: EngineSettings) -> RolloutEngine:
    return NativeEngine(sampling)


def _continuous(sampling: SamplingConfig, rollouts: EngineSettings) -> RolloutEngine:
    from plumbline.lm.engines.continuous import ContinuousEngine

    return ContinuousEngine(sampling)


def _vllm(sampling: SamplingConfig, rollouts: EngineSettings) -> RolloutEngine:
    from plumbline.lm.engines.vllm import VLLMEngine

    return VLLMEngine(sampling, rollouts.server)


def _colocated_vllm(sampling: SamplingConfig, rollouts: EngineSettings) -> RolloutEngine:
    from plumbline.lm.engines.vllm_colocate import ColocatedVLLMEngine

    return ColocatedVLLMEngine(sampling, rollouts.gpu_memory, eager=rollouts.enforce_eager)


def _check_for_continuous() -> None:
    from plumbline.lm.engines.continuous import check_machine

    check_machine()


def _check_for_colocated_vllm() -> None:
    from plumbline.lm.engines.vllm_colocate import check_machine

    check_machine()


@dataclass(frozen=True)
class Engine:
    """One engine, and what it can do."""

    name: str
    make: Callable[[SamplingConfig, EngineSettings], RolloutEngine]
    is_server: bool = False
    """Whether it is reached at ``rollouts.url``."""
    holds_weights: bool = False
    """Whether it has weights of its own, and gets the policy's before each round."""
    filters: bool = False
    """Whether it may sample with top-k and top-p, and still give log-probabilities before them."""
    sets_precision: bool = False
    """Whether ``sampling.precision`` may be other than the model's."""
    check_machine: Callable[[], None] | None = None
    """Raises `ModelError` where this machine lacks what it needs."""
    colocated: Engine | None = None
    """The same in the training's own process, for ``rollouts.mode: colocate``."""

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
        if self.holds_weights and not _reaches_vllm(tuning.row):
            raise ValueError(
                f"rollouts.engine is {self.name}, and tuning.method is {tuning.method}: weights "
                "reach vLLM as a LoRA adapter, or all of them. Set tuning.method to "
                f"{TUNING_METHODS.where(_reaches_vllm)}, or rollouts.engine to native or "
                "continuous"
            )


def _reaches_vllm(method: TuningMethod) -> bool:
    """Return whether vLLM can load what a method trains."""
    return "ppo" not in method.cannot and (method.low_rank or method.weights == "all")


_COLOCATED_VLLM = Engine(
    "vllm",
    _colocated_vllm,
    holds_weights=True,
    sets_precision=True,
    check_machine=_check_for_colocated_vllm,
)

ENGINES = Table(
    "engine",
    [
        Engine("native", _native, filters=True, sets_precision=True),
        Engine("continuous", _continuous, check_machine=_check_for_continuous),
        Engine("vllm", _vllm, is_server=True, holds_weights=True, colocated=_COLOCATED_VLLM),
    ],
    renamed={"own": "native"},
)
