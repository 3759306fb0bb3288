"""Which engine samples, and where it is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from plumbline.config import Config, only_when
from plumbline.lm.engines.engine import Server
from plumbline.lm.engines.table import ENGINES

_SERVERS = f"engine: {ENGINES.where(lambda row: row.is_server)}"


def _samples_by_server(rollouts: EngineConfig) -> bool:
    return ENGINES[rollouts.engine].is_server


class EngineConfig(Config):
    """How responses are sampled."""

    engine: Annotated[str, ENGINES] = "native"
    """native: our decode loop. continuous: transformers' continuous batching. vllm: a vLLM
    server."""
    url: str | None = only_when(_samples_by_server, _SERVERS, None)
    """The vLLM server's address, such as http://127.0.0.1:8000."""
    model: str | None = only_when(_samples_by_server, _SERVERS, None)
    """The name under which that server has the policy's base. Null: the base's own name or path."""
    adapters: Path | None = only_when(_samples_by_server, _SERVERS, None, in_identity=False)
    """A folder that this process writes adapters to and the server reads them from, at the same
    path. Null: a temporary one, which a server on the same machine can read."""

    @property
    def server(self) -> Server:
        """The server that samples, where the engine is one."""
        return Server(self.url, self.model, self.adapters)
