"""Requests to an OpenAI-compatible endpoint, and a journal of its answers.

Each answer is on the disk before another request is sent in its place. So a run that is killed at
any moment resumes and pays for no answer twice. (Requests in flight at that moment had no answer
yet, as far as this side knows, and are sent again.)
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from annotation.llm_judge.config import JudgeConfig
from annotation.llm_judge.prompt import SCHEMA, Side
from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError

Answer = dict[str, Any]
"""A reply: ``content``, ``refusal``, ``finish_reason``, tokens, what it is about, and when."""

_TOO_MANY_REFUSALS = 5
"""So many refusals and no answer mean that the settings are wrong."""


class Key(NamedTuple):
    """What a request is about."""

    pair_id: str
    first: Side


class Journal:
    """Answers, appended to a file as they come; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.answers: dict[Key, Answer] = {}
        if path.exists():
            self._read()

    def add(self, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns."""
        line = json.dumps(answer, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            with self._path.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
            self._keep(answer)

    def _keep(self, answer: Answer) -> None:
        self.answers[Key(answer["pair_id"], answer["first"])] = answer

    def _read(self) -> None:
        """Read the complete lines; cut off half a line, which a kill may leave."""
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._path, len(whole))
        for line in whole.decode().splitlines():
            self._keep(json.loads(line))


class TurnedDown(NamedTuple):
    """A request that the endpoint refuses, however often it is sent."""

    key: Key
    reason: str


class Endpoint:
    """Sends requests by the openai client, which retries those that may succeed later."""

    def __init__(self, config: JudgeConfig) -> None:
        import openai

        self._config = config
        self._secret = api_key(config)
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=self._secret or "none",  # else it would send OPENAI_API_KEY, to any endpoint
            timeout=config.timeout,
            max_retries=config.retries,
        )
        # The client takes these from the environment; another endpoint must not get them.
        self._client.organization = self._client.project = None
        self.structured = config.structured != "text"
        """Whether a JSON schema asks for the verdict; False once the endpoint refuses one."""

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def scrub(self, text: str) -> str:
        """Return a text without the API key, in case an endpoint repeats it."""
        return text.replace(self._secret, "(the key)") if self._secret else text

    def ask(self, key: Key, messages: Callable[[bool], list[Message]]) -> Answer | TurnedDown:
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

    def _try(self, key: Key, messages: Sequence[Message], structured: bool) -> Answer | TurnedDown:
        import openai

        try:
            return self._send(key, messages, structured)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return TurnedDown(key, self._reason(error))
        except openai.OpenAIError as error:
            # Without its cause: the client's own error holds the request, with the key.
            raise self._failure(error) from None

    def _send(self, key: Key, messages: Sequence[Message], structured: bool) -> Answer | TurnedDown:
        config = self._config
        request: dict[str, Any] = {"model": config.model, "messages": list(messages)}
        request[config.limit_name] = config.max_tokens
        if config.temperature is not None:
            request["temperature"] = config.temperature
        if structured:
            request["response_format"] = SCHEMA
        raw = self._client.chat.completions.with_raw_response.create(**request)
        body = _body(raw.content)
        choice = _first(body.get("choices"))
        message, usage = choice.get("message"), body.get("usage") or {}
        if not isinstance(message, dict):
            return TurnedDown(
                key, f"the reply is not a chat completion: {self.scrub(raw.text)[:200]}"
            )
        return {
            **key._asdict(),
            "content": self._text(message.get("content")),
            "refusal": self._text(message.get("refusal")),
            "finish_reason": choice.get("finish_reason"),
            "structured": structured,
            "model": self._text(body.get("model")),
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "retries": raw.retries_taken,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _text(self, value: object) -> str | None:
        return None if value is None else self.scrub(str(value))

    def _reason(self, error: Any) -> str:
        return self.scrub(" ".join(str(error).split()))[:300]

    def _failure(self, error: Any) -> ModelError:
        """Return an error that says what is wrong with the endpoint, and what to do."""
        import openai

        config = self._config
        again = "All answers are kept. The same command resumes."
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            held = (
                f"the key in {config.api_key_env} was refused. Check that variable"
                if config.api_key_env is not None
                else "no key was sent. Name the variable that holds one in judge.api_key_env"
            )
            advice = f"{held}. {again}"
        elif isinstance(error, openai.NotFoundError):
            advice = f"It may have no model {config.model!r}, or no API at this address. {again}"
        elif isinstance(error, openai.APITimeoutError):
            advice = f"No reply within judge.timeout ({config.timeout:g} s). {again}"
        else:
            advice = f"Tried {config.retries + 1} times. {again}"
        return ModelError(
            f"The judge {config.model!r} at {config.base_url} failed: {self._reason(error)}. "
            f"{advice}"
        )


def ask_all(
    endpoint: Endpoint,
    questions: Iterable[tuple[Key, Callable[[bool], list[Message]]]],
    journal: Journal,
    concurrency: int,
    progress: Callable[[], None],
) -> list[TurnedDown]:
    """Send the requests that the journal lacks, so many at once; return those refused.

    After a failure nothing more is sent, but replies in flight are still awaited and kept, because
    they are paid for.
    """
    turned_down: list[TurnedDown] = []
    stop, showing = threading.Event(), threading.Lock()

    def work(key: Key, messages: Callable[[bool], list[Message]]) -> None:
        if stop.is_set():
            return
        try:
            answer = endpoint.ask(key, messages)
            if isinstance(answer, TurnedDown):
                turned_down.append(answer)
                if len(turned_down) >= _TOO_MANY_REFUSALS and not journal.answers:
                    raise ModelError(
                        f"The judge turned down all of the first {len(turned_down)} requests: "
                        f"{answer.reason}. Check judge.model, judge.max_tokens, judge.limit_name, "
                        "judge.temperature and judge.structured against what it supports."
                    )
            else:
                journal.add(answer)
        except BaseException:
            stop.set()
            raise
        with showing:
            progress()

    with ThreadPoolExecutor(concurrency, thread_name_prefix="judge") as pool:
        try:
            waiting = [pool.submit(work, *q) for q in questions if q[0] not in journal.answers]
            wait(waiting, return_when=FIRST_EXCEPTION)
        finally:  # also on Ctrl-C: leaving the block waits for all requests that were submitted
            stop.set()
    for future in waiting:
        future.result()
    return turned_down


def api_key(config: JudgeConfig) -> str | None:
    """Return the key from the environment, or None where none is configured."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"judge.api_key_env is {config.api_key_env!r}, but the environment has no such "
            f"variable, or it is empty. Set it (export {config.api_key_env}=...), or set "
            "judge.api_key_env to null where the endpoint needs no key."
        )
    return key


def _body(content: bytes) -> dict[str, Any]:
    """Return a reply's body as an object; an empty one where it is anything else."""
    with suppress(ValueError):
        value = json.loads(content)
        if isinstance(value, dict):
            return value
    return {}


def _first(choices: object) -> dict[str, Any]:
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}
