"""Which engine samples, and where it is reached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from plumbline.config import Check, Config, only_when
from plumbline.lm.engines.engine import RolloutEngine, Server
from plumbline.lm.engines.table import ENGINES, Engine
from plumbline.lm.generation import SamplingConfig

_TWO_MODES = f"engine: {ENGINES.where(lambda row: row.colocated is not None)}"
_SERVERS = f"engine: {ENGINES.where(lambda row: row.is_server)} and mode: server"
_COLOCATED = f"{_TWO_MODES} and mode: colocate"


def _has_two_modes(rollouts: EngineConfig) -> bool:
    return ENGINES[rollouts.engine].colocated is not None


def _samples_by_server(rollouts: EngineConfig) -> bool:
    return rollouts.row.is_server


def _is_colocated(rollouts: EngineConfig) -> bool:
    return rollouts.mode == "colocate"


class EngineConfig(Config):
    """How responses are sampled."""

    engine: Annotated[str, ENGINES] = "native"
    """native: our decode loop. continuous: transformers' continuous batching, on a CPU. vllm: a
    vLLM server, or vLLM in this process."""
    mode: Literal["server", "colocate"] = only_when(_has_two_modes, _TWO_MODES, "server")
    """server: vLLM at url, in an environment of its own. colocate: vLLM in this process, on the
    same GPU, asleep while the policy learns."""
    gpu_memory: float = only_when(_is_colocated, _COLOCATED, 0.3, in_identity=False, gt=0, lt=1)
    """Share of the GPU's memory that vLLM may take in this process."""
    enforce_eager: bool = only_when(_is_colocated, _COLOCATED, False, in_identity=False)
    """Let it compute without CUDA graphs, which start and memory take, and decoding gains by."""
    url: str | None = only_when(_samples_by_server, _SERVERS, None)
    """The vLLM server's address, such as http://127.0.0.1:8000."""
    model: str | None = only_when(_samples_by_server, _SERVERS, None)
    """The name under which that server has the policy's base. Null: the base's own name or path."""
    adapters: Path | None = only_when(_samples_by_server, _SERVERS, None, in_identity=False)
    """A folder that this process writes adapters to and the server reads them from, at the same
    path. Null: a temporary one, which a server on the same machine can read."""

    def checks_before_work(self) -> Sequence[Check]:
        """Look for what the engine needs of this machine."""
        check = self.row.check_machine
        return () if check is None else (check,)

    @property
    def row(self) -> Engine:
        """The row of the table, in the mode that is set."""
        row = ENGINES[self.engine]
        return row.colocated if self.mode == "colocate" and row.colocated else row

    def make_engine(self, sampling: SamplingConfig) -> RolloutEngine:
        """Return the engine; `checks_before_work` has found what it needs."""
        return self.row.make(sampling, self)

    @property
    def server(self) -> Server:
        """The server that samples, where the engine is one."""
        return Server(self.url, self.model, self.adapters)
