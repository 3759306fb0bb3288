"""A scorer on another machine, or in another process: the client of `plumbline reward serve`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.proxies import client_options

TOKEN = "PLUMBLINE_REWARD_TOKEN"
#: Statuses after which the same request may succeed later.
_LATER = (408, 425, 429, 502, 503, 504)
_LONGEST_PAUSE = 10.0


class RemoteScorer:
    """Scores by a reward server; usable wherever a scorer is.

    Requests are sent again while the server is down or full, for up to ``patience`` seconds, so a
    server that is killed and started again costs a training only that time. ``content`` is the
    hash of the model that must answer (`content_at`): a server with another model is refused, also
    in the middle of a training. A token is taken from ``PLUMBLINE_REWARD_TOKEN``.
    """

    name = "reward"

    def __init__(
        self,
        url: str,
        content: str,
        *,
        patience: float = 600.0,
        timeout: float = 300.0,
        rows: int = 256,
    ) -> None:
        self.url, self.content = _checked(url), content
        self._patience, self._timeout, self._rows = patience, timeout, rows
        self._client: tuple[int, httpx.Client] | None = None

    def score(self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]) -> list[float]:
        """Return the server's score of each response; raise `ModelError` where it gives none."""
        scores: list[float] = []
        for start in range(0, len(responses), self._rows):
            part = slice(start, start + self._rows)
            reply = self._ask(
                "/score",
                {"prompts": list(prompts[part]), "responses": list(responses[part])},
            )
            received = reply.get("scores")
            if not isinstance(received, list) or len(received) != len(responses[part]):
                raise ModelError(
                    f"{self.url} gave no list of {len(responses[part])} scores. Is it a reward "
                    "server of this version?"
                )
            scores += map(float, received)
        return scores

    def problem_with(self, prompt: Sequence[Message]) -> str | None:
        """Return why no response to a prompt can be scored; None where each can be."""
        problem: str | None = self._ask("/check", {"prompt": list(prompt)}).get("problem")
        return problem

    def _ask(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the reply to a request, sent again until it has one."""
        until, pause = time.monotonic() + self._patience, 0.1
        while True:
            try:
                response = self._connection().post(path, json={**body, "content": self.content})
                if response.status_code not in _LATER:
                    return self._read(response)
                problem = _error_in(response)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            if time.monotonic() + pause > until:
                raise ModelError(
                    f"The reward server {self.url} gave no score within {self._patience:g} s: "
                    f"{problem}. Start it (plumbline reward serve); the same command resumes."
                )
            time.sleep(pause * random.uniform(0.5, 1.0))  # clients must not come all at once
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read(self, response: httpx.Response) -> Mapping[str, Any]:
        if response.status_code == 409:
            raise ModelError(
                f"{self.url} serves another model than this work began with: "
                f"{_error_in(response)}. Start the server with that model, or begin again."
            )
        if response.status_code == 401:
            raise ModelError(
                f"{self.url} asks for a token. Set {TOKEN} to the one that the server was started "
                "with."
            )
        if response.status_code != 200:
            raise ModelError(f"{self.url} refused to score: {_error_in(response)}.")
        reply = _json(response)
        if reply.get("content") != self.content:
            raise ModelError(
                f"{self.url} answered by the model {reply.get('content')}, and not by "
                f"{self.content}, which this work began with. Start the server with that model."
            )
        return reply

    def _connection(self) -> httpx.Client:
        """Return the connections of this process: those of a parent are not shared."""
        if self._client is None or self._client[0] != os.getpid():
            self._client = (os.getpid(), _client(self.url, self._timeout))
        return self._client[1]


def content_at(url: str, timeout: float = 10.0) -> str:
    """Return the hash of the model that a server scores by.

    Raises `ModelError` where no reward server answers.
    """
    url = _checked(url)
    with _client(url, timeout) as client:
        try:
            response = client.get("/health")
        except httpx.TransportError as error:
            raise ModelError(
                f"No reward server answers at {url} ({error}). Start one with: plumbline reward "
                "serve MODEL."
            ) from None
    content = _json(response).get("content")
    if response.status_code != 200 or not isinstance(content, str):
        raise ModelError(
            f"What answers at {url} is not a working reward server: status "
            f"{response.status_code}, {_error_in(response)}."
        )
    return content


def is_address(name: str) -> bool:
    """Return whether a user's name of a scorer is the address of a server."""
    return name.startswith(("http://", "https://"))


def _client(url: str, timeout: float) -> httpx.Client:
    token = os.environ.get(TOKEN)
    headers = {} if not token else {"authorization": f"Bearer {token}"}
    # Certificates take long to load, and http has none.
    options = {"verify": url.startswith("https:"), **client_options(url)}
    return httpx.Client(base_url=url, timeout=timeout, headers=headers, **options)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ConfigError(
            f"{url!r} is not the address of a server; write it like http://host:8100."
        )
    return url.rstrip("/")


def _json(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _error_in(response: httpx.Response) -> str:
    return str(_json(response).get("error") or f"status {response.status_code}")
