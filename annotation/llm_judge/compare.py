"""An LLM judge that is asked about one pair at a time, as a reward is: nothing is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from annotation.llm_judge.client import JudgeEndpoint, Key
from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.prompt import Verdict, question, read_reply
from plumbline.data.records import Message, Row, assistant
from plumbline.lm.endpoint.client import TurnedDown


class EndpointJudge:
    """Asks an OpenAI-compatible endpoint which of two responses is better."""

    def __init__(self, config: JudgeConfig) -> None:
        self._config, self._endpoint = config, JudgeEndpoint(config)
        self.concurrency = config.concurrency

    def compare(self, prompt: Sequence[Message], first: str, second: str) -> Verdict | None:
        """Return the verdict on two responses in the order in which they are shown.

        None where the endpoint refuses the request, or its reply has no readable verdict.
        """
        # The number of the marks comes from it, so that both orders have the same marks.
        name = _name(prompt, sorted([first, second]))
        row: Row = {
            "pair_id": name,
            "prompt": list(prompt),
            "a": [assistant(first)],
            "b": [assistant(second)],
        }
        answer = self._endpoint.ask(
            Key(name, "a"),
            lambda structured: question(self._config, row, "a", structured=structured, seed=0),
        )
        return None if isinstance(answer, TurnedDown) else read_reply(answer).verdict


def _name(prompt: Sequence[Message], responses: Sequence[str]) -> str:
    text = json.dumps([prompt, responses], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
