"""What writes texts for a dataset: a model on this machine, or one behind an endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from plumbline.data.records import Message
from plumbline.lm.endpoint.answers import Journal, by_content, content_key
from plumbline.lm.endpoint.client import Endpoint, Reply, TurnedDown, ask_all
from plumbline.lm.endpoint.config import EndpointConfig
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
#: Seeds that all servers accept.
_SEEDS = 2**31


class Written(NamedTuple):
    """A text, or why there is none."""

    text: str
    problem: str = ""
    """In words that continue "the model …"; empty where there is a text."""


class Writer(Protocol):
    """Writes a text to each prompt."""

    def write(self, prompts: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Written]:
        """Return a text to each prompt, drawn by its own seed."""
        ...


class LocalWriter:
    """A model on this machine."""

    def __init__(self, policy: Policy, sampling: SamplingConfig) -> None:
        self._policy, self._sampling = policy, sampling

    def write(self, prompts: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Written]:
        """Return a text to each prompt; none where the chat template or the context refuse it."""
        room = self._sampling.max_new_tokens
        written = [Written("", self._policy.problem_with(prompt, room) or "") for prompt in prompts]
        fit = [n for n, entry in enumerate(written) if not entry.problem]
        sampled = self._policy.sample(
            [self._policy.encode(prompts[n]) for n in fit],
            [seeds[n] for n in fit],
            self._sampling,
        )
        for n, generation in zip(fit, sampled, strict=True):
            text = self._policy.decode(generation.ids)
            written[n] = _plain(text, cut=not generation.finished)
        return written


class WriterEndpointConfig(EndpointConfig):
    """A model behind an OpenAI-compatible endpoint, which writes texts."""

    max_tokens: int = Field(512, ge=16)
    """The longest text, in tokens. Models that reason before they answer need more."""
    seeded: bool = True
    """Send a seed with each request, so that an endpoint that respects it draws the same again.
    False for endpoints that refuse it."""


def check_one_writer(model: str | None, endpoint: WriterEndpointConfig | None) -> None:
    """Raise `ValueError` where settings name both a model and an endpoint, or neither."""
    if (model is None) == (endpoint is None):
        raise ValueError(
            "model and endpoint are both given, or neither. Give one of them: a model on this "
            "machine, or an endpoint"
        )


class EndpointWriter:
    """A model behind an endpoint. Its answers are kept by content, so none is asked for twice."""

    def __init__(self, config: WriterEndpointConfig, folder: Path) -> None:
        """Answers are kept in ``folder``."""
        self._config = config
        self._endpoint = Endpoint(config)
        self._answers: Journal[str] = by_content(folder, config)

    def write(self, prompts: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[Written]:
        """Return a text to each prompt; none where the endpoint gives no usable one."""
        bodies = [
            self._endpoint.body(prompt, **({"seed": seed % _SEEDS} if self._config.seeded else {}))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        # Without its seed in the request, a second draw of a prompt would find the first one.
        keys = [
            content_key({**body, "draw": seed}) for body, seed in zip(bodies, seeds, strict=True)
        ]
        questions = {
            key: partial(self._ask, key, body) for key, body in zip(keys, bodies, strict=True)
        }
        refused = ask_all(questions.items(), self._answers, self._config)
        return [
            Written("", f"gave no text: {refused[key].reason}")
            if key in refused
            else _of_reply(self._answers.answers[key])
            for key in keys
        ]

    def _ask(self, key: str, body: dict[str, Any]) -> Reply | TurnedDown:
        reply = self._endpoint.send(body)
        return reply if isinstance(reply, TurnedDown) else {"asked": key, **reply}


def _of_reply(reply: Reply) -> Written:
    if reply.get("refusal") or reply.get("finish_reason") == "content_filter":
        return Written("", "refused to write")
    return _plain(reply.get("content") or "", cut=reply.get("finish_reason") == "length")


def _plain(text: str, *, cut: bool) -> Written:
    """Return a text without the reasoning before it; none where it was cut off or is empty."""
    if cut:
        return Written("", "was cut off at its longest reply")
    text = _THOUGHT.sub("", text).strip()
    return Written(text) if text else Written("", "wrote nothing")
