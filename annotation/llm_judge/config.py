"""What may vary in asking a model to judge pairs.

Apart from the room's other settings: what a judge has been paid for is asked again when the code
behind it changes, and a new knob for labellers is no reason to.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from plumbline.config import Config, not_in_identity

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class JudgeConfig(Config):
    """An LLM judge behind an OpenAI-compatible endpoint, which sees every pair in both orders."""

    model: str = Field(min_length=1)
    """The model's name at the endpoint. It signs the labels."""
    base_url: str = "http://127.0.0.1:8000/v1"
    """Where the endpoint is. The default is a server on this machine; with another, prompts and
    responses leave it."""
    api_key_env: str | None = not_in_identity(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the API key; the key itself stands nowhere.
    Null sends none."""
    prompt_version: Literal["pairwise-1"] = "pairwise-1"
    """Which wording of the question is used."""
    criteria: tuple[str, ...] = Field(
        (
            "It does what the user asked for: correctly, completely, to the point.",
            "It is honest: it claims nothing false and does not hide what it does not know.",
            "It is harmless: it helps nobody to hurt anybody.",
        ),
        min_length=1,
    )
    """By what the judge compares, most important first."""
    inconsistent: Literal["tie", "leave_out"] = "tie"
    """What becomes of a pair on which the judge says otherwise in the other order. Left out, it
    gets no label, and is counted."""
    structured: Literal["auto", "schema", "text"] = "auto"
    """How the verdict is asked for: by a JSON schema, as a last line of text, or by a schema
    until the endpoint refuses one."""
    temperature: float | None = Field(0.0, ge=0, le=2)
    """Sampling temperature. Null leaves it to the endpoint; some models take no other."""
    max_tokens: int = Field(1024, ge=16)
    """Longest reply, in tokens. Models that think aloud need more."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls that limit: newer OpenAI models take only the second."""
    concurrency: int = not_in_identity(8, ge=1, le=256)
    """Requests in flight at once."""
    timeout: float = not_in_identity(120.0, gt=0)
    """Seconds to wait for one reply."""
    retries: int = not_in_identity(6, ge=0)
    """Times a request is sent again after 408, 409, 429, 5xx or a lost connection, with growing
    pauses, or as the endpoint's Retry-After says."""
    input_price: float | None = not_in_identity(None, ge=0)
    """Price of a million prompt tokens, to report the cost. Null reports none."""
    output_price: float | None = not_in_identity(None, ge=0)
    """Price of a million tokens of replies, in the same currency."""

    @field_validator("base_url")
    @classmethod
    def _is_a_plain_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is no address such as https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            # Not quoted: it would put the secret in the message.
            raise ValueError(
                "the address holds a user, a password, a query or a fragment, and it is written "
                "into manifests. Give the bare address, and the key by api_key_env"
            )
        return value.rstrip("/")

    @model_validator(mode="after")
    def _key_travels_encrypted(self) -> JudgeConfig:
        if self.api_key_env is not None and not self.is_local and self.is_plain:
            raise ValueError(
                f"base_url is {self.base_url!r}, so the key in {self.api_key_env} would cross the "
                "network unencrypted. Use https, or api_key_env: null where no key is needed"
            )
        return self

    @property
    def host(self) -> str:
        """The endpoint's host."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        return self.host in LOOPBACK

    @property
    def is_plain(self) -> bool:
        """Whether the endpoint is reached without encryption."""
        return urlsplit(self.base_url).scheme == "http"
