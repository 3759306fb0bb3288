"""Requests to a labelling server: repeated while it restarts, and never showing the API key."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from plumbline.errors import ConfigError, PlumblineError, brief
from plumbline.proxies import client_options, is_loopback

if TYPE_CHECKING:
    import httpx

PATIENCE_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_READ_SECONDS = 60.0
_ATTEMPTS_AT_A_SERVER_ERROR = 5
_LATER = (429, 502, 503, 504)


class ServerError(PlumblineError):
    """The labelling server does not answer, or fails."""


class RefusedError(ServerError):
    """The labelling server answered and refused."""

    status = 0
    """The HTTP status."""

    @classmethod
    def with_status(cls, status: int, message: str) -> RefusedError:
        """Return the error for an HTTP status."""
        error = cls(message)  # an error with one argument survives the way out of a stage's process
        error.status = status
        return error


@dataclass(frozen=True)
class Connection:
    """The address of a labelling server, and the API key for it, which is never shown."""

    url: str
    api_key: str = field(repr=False)
    certificate: Path | None = None
    """The only TLS certificate that is accepted. None: any that this system trusts."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"The server's address is {self.url!r}. Write it like http://127.0.0.1:6900 or "
                "https://labels.example.org."
            )
        if parts.username or parts.password:
            raise ConfigError(
                f"The address of the server at {parts.hostname} holds a user name or password. "
                "Addresses are shown and stored. Leave them out; the API key is enough."
            )
        if not self.api_key.strip() or not self.api_key.isascii() or not self.api_key.isprintable():
            raise ConfigError(
                f"The API key for {self.url} is empty or not plain text. You find it on the page "
                "'My settings' of the labelling site."
            )

    @property
    def is_unencrypted(self) -> bool:
        """Whether the key would cross a network without encryption."""
        return urlsplit(self.url).scheme == "http" and not is_loopback(self.url)


def only_this_certificate(certificate: Path) -> ssl.SSLContext:
    """Return a context that accepts one server certificate, for any name.

    Commands reach this machine's own site by its address, but its certificate is for the name that
    other people use, or is self-signed.
    """
    text = certificate.read_text(encoding="ascii")
    end = "-----END CERTIFICATE-----"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is the anchor
    context.load_verify_locations(cadata=text[: text.index(end) + len(end)])
    return context


#: What holds a list of objects in Argilla's answers.
_LISTS = ("items", "users")


class Row(dict[str, Any]):
    """An object in an answer; a key that is not there is an error of the server's."""

    def __missing__(self, key: str) -> Any:
        raise ServerError(
            f"The labelling server gave an answer without {key!r}, so it is not Argilla, or is "
            "one of another version. Check its address."
        )


class Client:
    """Sends requests, and sends them again while the server does not answer or says "later".

    This is safe because every request of this package may be sent twice without harm.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        certificate: Path | None = None,
        patience: float = PATIENCE_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        import httpx

        self.url = url.rstrip("/")
        self.patience = patience
        self._transport = transport
        options = client_options(url)
        if certificate is not None:
            options["verify"] = only_this_certificate(certificate)
        self._http = httpx.Client(
            base_url=self.url,
            headers=dict(headers),
            timeout=httpx.Timeout(_READ_SECONDS, connect=5.0),
            transport=transport,
            **options,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url})"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def request(
        self, method: str, path: str, *, patience: float | None = None, **content: Any
    ) -> Row:
        """Send a request; return the object in the reply, or an empty one where it is empty.

        Raises `RefusedError` where the server refuses, and `ServerError` where it does not answer
        within ``patience`` seconds.
        """
        import httpx

        deadline = time.monotonic() + (self.patience if patience is None else patience)
        pause, failures = _FIRST_PAUSE, 0
        while True:
            wait = pause
            try:
                response = self._http.request(method, f"/api/v1{path}", **content)
            except httpx.TransportError as error:
                trouble = _reason(error)
            except httpx.RequestError as error:  # an answer that cannot be unpacked
                raise self._not_understood(_reason(error)) from None
            else:
                if response.is_success:
                    return self._json_of(response)
                if response.status_code in _LATER:
                    trouble = _summary(response)
                    wait = max(pause, _seconds(response.headers.get("retry-after")))
                elif response.status_code >= 500 and failures < _ATTEMPTS_AT_A_SERVER_ERROR:
                    failures += 1
                    trouble = _summary(response)
                else:
                    raise self._refused(method, path, response)
            if time.monotonic() + wait > deadline:
                raise ServerError(self._no_answer(trouble)) from None
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _json_of(self, response: httpx.Response) -> Row:
        """Return the object in an answer, with `Row` for each object; an empty one for none."""
        if not response.content:
            return Row()
        try:
            answer = json.loads(response.content, object_hook=Row)
        except RecursionError:
            raise self._not_understood("it is nested too deeply") from None
        except ValueError as error:
            raise self._not_understood(f"it is not JSON ({error})") from None
        if not isinstance(answer, Row):
            raise self._not_understood(f"{brief(answer)} where an object belongs")
        for rows in filter(None, map(answer.get, _LISTS)):
            if not isinstance(rows, list) or not all(isinstance(row, Row) for row in rows):
                raise self._not_understood(f"{brief(rows)} where a list of objects belongs")
        return answer

    def _not_understood(self, what: str) -> ServerError:
        return ServerError(
            f"The labelling server at {self.url} gave an answer that is none of Argilla's: {what}. "
            "Check the address; another program may answer there, or a proxy in front of it."
        )

    def _no_answer(self, trouble: str) -> str:
        return (
            f"The labelling server at {self.url} does not answer: {trouble}. Start it with "
            "'plumbline annotate up', or give its address with --server. Nothing is lost: the same "
            "command resumes."
        )

    def _refused(self, method: str, path: str, response: httpx.Response) -> RefusedError:
        detail = _detail(response)
        status = response.status_code
        if status == 401:
            message = (
                f"The labelling server at {self.url} does not know this API key, or this name and "
                "password. The API key is on the page 'My settings' of the labelling site. Give it "
                "with --api-key-file or in ARGILLA_API_KEY."
            )
        elif status == 403:
            message = (
                f"The labelling server at {self.url} does not allow this user to {method} {path}. "
                "Campaigns need the owner's API key, or an admin's for a workspace that exists."
            )
        else:
            message = (
                f"The labelling server at {self.url} refuses {method} {path}: {status} "
                f"{response.reason_phrase}. {detail}".rstrip()
            )
        return RefusedError.with_status(status, message)


def _reason(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _seconds(value: str | None) -> float:
    """Return a Retry-After in seconds; 0 for a date, which no labelling server sends."""
    return float(value) if value is not None and value.isdigit() else 0.0


def _summary(response: httpx.Response) -> str:
    return f"it says {response.status_code} {response.reason_phrase} {_detail(response)}".rstrip()


def _detail(response: httpx.Response) -> str:
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return ""
    detail = body.get("detail", body) if isinstance(body, Mapping) else body
    return str(detail)[:500]
