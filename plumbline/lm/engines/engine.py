"""What every engine does: it samples from a policy whose weights change between rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from plumbline.lm.generation import Generation
from plumbline.lm.policy import Policy


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

    def release(self) -> None:
        """Give up memory that it needs no more before the next refresh."""
        ...


class Server(NamedTuple):
    """A server that samples; what the settings of the same names say."""

    url: str | None
    model: str | None
    adapters: Path | None


class EngineSettings(Protocol):
    """What engines read of `plumbline.lm.engines.config.EngineConfig`, built on their table."""

    @property
    def server(self) -> Server:
        """The server that samples, where the engine is one."""
        ...

    @property
    def gpu_memory(self) -> float:
        """Share of the GPU's memory that vLLM may take in this process."""
        ...

    @property
    def enforce_eager(self) -> bool:
        """Whether it computes without CUDA graphs."""
        ...
