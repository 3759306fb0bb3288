"""Requests to an OpenAI-compatible endpoint, sent again where that may help.

Each answer is on the disk before another request is sent in its place. So work that is killed at
any moment resumes and pays for no answer twice. (Requests in flight at that moment had no answer
yet, as far as this side knows, and are sent again.)
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

from plumbline.data.records import Message
from plumbline.errors import ConfigError, ModelError
from plumbline.lm.endpoint.config import EndpointConfig, api_key
from plumbline.proxies import client_options

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)
Reply = dict[str, Any]
"""A reply: ``content``, ``refusal``, ``finish_reason``, tokens, and when it came."""

_TOO_MANY_REFUSALS = 5
"""So many refusals and no answer mean that the settings are wrong."""
_NONSENSE_RETRIES = 2
"""Further tries where a reply is not a chat completion: a proxy may be starting."""
_AGAIN = "All answers are kept. The same command resumes."


class TurnedDown(NamedTuple):
    """A request that the endpoint refuses, however often it is sent."""

    reason: str


class Endpoint:
    """Sends requests by the openai client, which retries those that may succeed later."""

    def __init__(self, config: EndpointConfig) -> None:
        try:
            import openai
        except ImportError:
            raise ConfigError(
                f"{config.place} is a model behind an endpoint, which the package openai speaks "
                "to: pip install 'plumbline-rlhf[judge]'."
            ) from None
        self._config = config
        self._secret = api_key(config)
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=self._secret or "none",  # else it would send OPENAI_API_KEY, to any endpoint
            timeout=config.timeout,
            max_retries=config.retries,
            http_client=_http_client(config),
        )
        # The client takes these from the environment; another endpoint must not get them.
        self._client.organization = self._client.project = None

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def scrub(self, text: str) -> str:
        """Return a text without the API key, in case an endpoint repeats it."""
        return text.replace(self._secret, "(the key)") if self._secret else text

    def body(self, messages: Sequence[Message], **more: Any) -> dict[str, Any]:
        """Return what is sent: the model, the messages, its limits, and ``more``."""
        config = self._config
        body: dict[str, Any] = {"model": config.model, "messages": list(messages)}
        body[config.limit_name] = config.max_tokens
        if config.temperature is not None:
            body["temperature"] = config.temperature
        return body | more

    def send(self, body: dict[str, Any]) -> Reply | TurnedDown:
        """Send a request, as `body` made it.

        Raises `ModelError` where every other request would fail as well.
        """
        import openai

        try:
            for attempt in range(1 + min(_NONSENSE_RETRIES, self._config.retries)):
                if attempt:
                    time.sleep(0.25 * 2**attempt)
                reply = self._send_once(body, attempt)
                if not isinstance(reply, TurnedDown):
                    break
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            return TurnedDown(self._reason(error))
        except openai.OpenAIError as error:
            # Without its cause: the client's own error holds the request, with the key.
            raise self._failure(error) from None
        return reply

    def _send_once(self, body: dict[str, Any], attempt: int) -> Reply | TurnedDown:
        raw = self._client.chat.completions.with_raw_response.create(**body)
        received = _object(raw.content)
        choice = _first(received.get("choices"))
        message, usage = choice.get("message"), received.get("usage") or {}
        if not isinstance(message, dict) or not isinstance(usage, dict):
            text = self.scrub(raw.content.decode(errors="replace"))[:200]
            return TurnedDown(f"the reply is not a chat completion: {text}")
        return {
            "content": self._text(message.get("content")),
            "refusal": self._text(message.get("refusal")),
            "finish_reason": choice.get("finish_reason"),
            "model": self._text(received.get("model")),
            "prompt_tokens": usage.get("prompt_tokens"),
            "completion_tokens": usage.get("completion_tokens"),
            "retries": raw.retries_taken + attempt,
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
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            held = (
                f"the key in {config.api_key_env} was refused. Check that variable"
                if config.api_key_env is not None
                else f"no key was sent. Name its variable in {config.place}.api_key_env"
            )
            advice = f"{held}. {_AGAIN}"
        elif isinstance(error, openai.NotFoundError):
            advice = f"It may have no model {config.model!r}, or no API at this address. {_AGAIN}"
        elif isinstance(error, openai.APITimeoutError):
            advice = f"No reply within {config.place}.timeout ({config.timeout:g} s). {_AGAIN}"
        else:
            advice = f"Tried {config.retries + 1} times. {_AGAIN}"
        return ModelError(
            f"The model {config.model!r} at {config.base_url} failed: {self._reason(error)}. "
            f"{advice}"
        )


class Answers(Protocol[K_contra]):
    """Where answers are kept (`plumbline.lm.endpoint.answers`)."""

    def __contains__(self, key: K_contra) -> bool:
        """Return whether a request has an answer."""
        ...

    def add(self, key: K_contra, answer: Reply) -> None:
        """Keep an answer; it is on the disk when this returns."""
        ...


def ask_all(
    questions: Iterable[tuple[K, Callable[[], Reply | TurnedDown]]],
    answers: Answers[K],
    config: EndpointConfig,
    *,
    progress: Callable[[], None] = lambda: None,
) -> dict[K, TurnedDown]:
    """Ask what has no answer yet, ``concurrency`` at once; return the requests that were refused.

    After a failure nothing more is sent, but replies in flight are still awaited and kept, because
    they are paid for.
    """
    wanted, turned_down = list(questions), dict[K, TurnedDown]()
    stop, showing = threading.Event(), threading.Lock()

    def work(key: K, ask: Callable[[], Reply | TurnedDown]) -> None:
        if stop.is_set():
            return
        try:
            answer = ask()
            if isinstance(answer, TurnedDown):
                turned_down[key] = answer
                if len(turned_down) >= _TOO_MANY_REFUSALS and not any(
                    q in answers for q, _ in wanted
                ):
                    raise ModelError(
                        f"The model {config.model!r} turned down all of the first "
                        f"{len(turned_down)} requests: {answer.reason}. Check model, "
                        f"max_tokens, limit_name and temperature of {config.place} against what it "
                        "supports."
                    )
            else:
                answers.add(key, answer)
        except BaseException:
            stop.set()
            raise
        with showing:
            progress()

    with ThreadPoolExecutor(config.concurrency, thread_name_prefix=config.place) as pool:
        try:
            waiting = [pool.submit(work, *q) for q in wanted if q[0] not in answers]
            wait(waiting, return_when=FIRST_EXCEPTION)
        finally:  # also on Ctrl-C: leaving the block waits for all requests that were submitted
            stop.set()
    for future in waiting:
        future.result()
    return turned_down


class Pace:
    """Lets so many pass in a minute, evenly, whichever thread they are in."""

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gap, self._clock, self._sleep = 60.0 / per_minute, clock, sleep
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the next may pass."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)


def _http_client(config: EndpointConfig) -> Any:
    """Return an HTTP client that sends no faster than the settings say."""
    import openai

    options = client_options(config.base_url)
    if config.requests_per_minute is not None:
        pace = Pace(config.requests_per_minute)
        # A hook of the HTTP client is called for each attempt, those of openai's retries included.
        options["event_hooks"] = {"request": [lambda _: pace.wait()]}
    return openai.DefaultHttpxClient(**options)


def _object(content: bytes) -> dict[str, Any]:
    """Return a reply's body as an object; an empty one where it is anything else."""
    with suppress(ValueError, RecursionError):
        value = json.loads(content)
        if isinstance(value, dict):
            return value
    return {}


def _first(choices: object) -> dict[str, Any]:
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}
