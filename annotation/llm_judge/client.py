"""The judge's requests: about each pair in each order, by a JSON schema where one is accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.prompt import SCHEMA, Side
from plumbline.data.records import Message
from plumbline.lm.endpoint.answers import Journal
from plumbline.lm.endpoint.client import Endpoint, Reply, TurnedDown


class Key(NamedTuple):
    """What a request is about."""

    pair_id: str
    first: Side


def journal(path: Path) -> Journal[Key]:
    """Return the answers of a judge in a file, each known by its pair and order."""
    return Journal(path, lambda answer: Key(answer["pair_id"], answer["first"]))


class JudgeEndpoint:
    """Asks for verdicts."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config, self._endpoint = config, Endpoint(config)
        self.structured = config.structured != "text"
        """Whether a JSON schema asks for the verdict; False once the endpoint refuses one."""

    def close(self) -> None:
        """Close its connections."""
        self._endpoint.close()

    def ask(self, key: Key, messages: Callable[[bool], list[Message]]) -> Reply | TurnedDown:
        """Send a request; ``messages`` depend on whether there is a schema.

        Raises `ModelError` where every other request would fail as well.
        """
        structured = self.structured
        answer = self._try(key, messages(structured), structured)
        if not (
            isinstance(answer, TurnedDown) and structured and self._config.structured == "auto"
        ):
            return answer
        answer = self._try(key, messages(False), False)  # it may not support schemas
        if not isinstance(answer, TurnedDown):
            self.structured = False
        return answer

    def _try(self, key: Key, messages: Sequence[Message], structured: bool) -> Reply | TurnedDown:
        more = {"response_format": SCHEMA} if structured else {}
        answer = self._endpoint.send(self._endpoint.body(messages, **more))
        if isinstance(answer, TurnedDown):
            return answer
        return {**key._asdict(), **answer, "structured": structured}
