"""Settings of an OpenAI-compatible endpoint: where it is, which model, and how it is asked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from plumbline.config import Check, Config, not_in_identity
from plumbline.errors import ConfigError
from plumbline.proxies import is_loopback


class EndpointConfig(Config):
    """A model behind an OpenAI-compatible endpoint."""

    place: ClassVar[str] = "endpoint"
    """How errors name these settings: ``endpoint.timeout``."""

    model: str = Field(min_length=1)
    """The model's name at the endpoint."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """The endpoint's address. The default is a server on this machine; any other gets to see the
    texts that it is asked about."""
    api_key_env: str | None = not_in_identity(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable with the API key; the key itself is written nowhere. Null:
    no key."""
    temperature: float | None = Field(0.7, ge=0, le=2)
    """Sampling temperature. Null: the endpoint's default; some models accept no other."""
    max_tokens: int = Field(1024, ge=16)
    """The longest reply, in tokens. Models that reason before they answer need more."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The endpoint's name for that limit. Newer OpenAI models accept only the second."""
    concurrency: int = not_in_identity(8, ge=1, le=256)
    """Requests in flight at once."""
    requests_per_minute: float | None = not_in_identity(None, gt=0)
    """Most requests in a minute, those that are sent again included. Null: no limit."""
    timeout: float = not_in_identity(120.0, gt=0)
    """Seconds to wait for one reply."""
    retries: int = not_in_identity(6, ge=0)
    """How often a request is sent again after 408, 409, 429, 5xx or a lost connection, with growing
    pauses, or those of the endpoint's Retry-After."""

    @field_validator("base_url")
    @classmethod
    def _is_a_plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"base_url is {value!r}; write it like https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            # The value is not quoted: it holds a secret.
            raise ValueError(
                "base_url holds a user, a password, a query or a fragment, and is written into "
                "manifests. Give only the address, and the key by api_key_env"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _key_travels_encrypted(self) -> EndpointConfig:
        if self.api_key_env is not None and not self.is_local and self.is_plain:
            raise ValueError(
                f"base_url is {self.base_url!r}, so the key in {self.api_key_env} would cross the "
                "network without encryption. Use https, or set api_key_env to null if no key is "
                "needed"
            )
        return self

    def checks_before_work(self) -> Sequence[Check]:
        """Look for the key, where one is needed."""
        return () if self.api_key_env is None else (partial(check_api_key, self),)

    @property
    def host(self) -> str:
        """The endpoint's host."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(self.base_url)

    @property
    def is_plain(self) -> bool:
        """Whether the endpoint is reached without encryption."""
        return urlsplit(self.base_url).scheme == "http"

    @property
    def where(self) -> str:
        """Where texts go, for people."""
        return "this machine" if self.is_local else f"{self.host}: the texts go there"


def api_key(config: EndpointConfig) -> str | None:
    """Return the key from the environment, or None where none is configured."""
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"{config.place}.api_key_env is {config.api_key_env!r}, but the environment has no "
            f"such variable, or it is empty. Set it (export {config.api_key_env}=...), or set "
            f"{config.place}.api_key_env to null where the endpoint needs no key."
        )
    return key


def check_api_key(config: EndpointConfig) -> None:
    """Raise `ConfigError` where the key's variable is not set."""
    api_key(config)
