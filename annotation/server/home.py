"""A labelling site's folder: settings, secrets and data, for its owner's eyes only.

    site.json            how it is reached
    running.json         the server that runs now
    server.log           what it said
    secrets/             owner.json, session.key, attempts.json
    credentials/         one file a person, to hand over
    argilla/argilla.db   Argilla's data
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.errors import ConfigError

if TYPE_CHECKING:
    from annotation.campaign.client import Connection

PORT = 6900
OWNER = "owner"


@dataclass(frozen=True)
class Reach:
    """How a site is reached, as the user set it."""

    host: str = "127.0.0.1"
    port: int = PORT
    allow_hosts: tuple[str, ...] = ()
    """Names that the site answers to, beside this machine's own."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of the proxies in front of it; nobody else is let in."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Refuse what would put passwords on a network in the clear."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("TLS takes both: --tls-cert FILE and --tls-key FILE.")
        for file in (self.tls_certificate, self.tls_key):
            if file is not None and not file.is_file():
                raise ConfigError(f"There is no file {file} to take TLS from.")
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ConfigError(
                    f"--behind-proxy is {proxy!r}; it takes the proxy's address or network, such "
                    "as 10.0.0.7 or 172.18.0.0/16."
                ) from None
        if not 0 < self.port < 65536:
            raise ConfigError(f"--port is {self.port}; ports go from 1 to 65535.")
        if not self.is_loopback and self.tls_certificate is None and not self.proxies:
            raise ConfigError(
                f"--host is {self.host}, which other machines can reach, and passwords would cross "
                "the network in the clear. Give --tls-cert and --tls-key; or put a proxy with TLS "
                "before the site and name it: --behind-proxy ADDRESS."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def scheme(self) -> str:
        """What addresses on this machine begin with."""
        return "https" if self.tls_certificate else "http"

    @property
    def local_url(self) -> str:
        """The address for programs on this machine."""
        anywhere = self.host in ("0.0.0.0", "::", "localhost")
        host = "127.0.0.1" if anywhere else self.host
        if self.tls_certificate and self.allow_hosts:
            host = self.allow_hosts[0]  # the name that the certificate is for
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True)
class Site:
    """A labelling site, by its folder."""

    home: Path

    def prepare(self) -> None:
        """Make the folder and its secrets where they are not there yet."""
        for folder in (self.home, self.secrets, self.credentials, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        key = self.secrets / "session.key"
        if not key.exists():
            write_private(key, secrets.token_urlsafe(64))
        if not self.owner_file.exists():
            write_private_json(
                self.owner_file,
                {
                    "username": OWNER,
                    "password": new_password(),
                    "api_key": secrets.token_urlsafe(60),
                },
            )
        for file in self.secrets.iterdir():
            file.chmod(0o600)

    @property
    def secrets(self) -> Path:
        """The folder of what nobody else may know."""
        return self.home / "secrets"

    @property
    def credentials(self) -> Path:
        """The folder of people's first passwords."""
        return self.home / "credentials"

    @property
    def temporary(self) -> Path:
        """Where the server puts what it needs while it runs."""
        return self.home / "tmp"

    @property
    def owner_file(self) -> Path:
        """The owner's name, password and key."""
        return self.secrets / "owner.json"

    @property
    def attempts(self) -> Path:
        """Counts of wrong passwords."""
        return self.secrets / "attempts.json"

    @property
    def database(self) -> Path:
        """Argilla's SQLite file."""
        return self.home / "argilla" / "argilla.db"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.home / "server.log"

    @property
    def running_file(self) -> Path:
        """Which process serves, while one does."""
        return self.home / "running.json"

    def exists(self) -> bool:
        """Tell whether a site was ever made here."""
        return self.owner_file.exists()

    def reach(self) -> Reach:
        """Return how the site was last reached."""
        file = self.home / "site.json"
        if not file.exists():
            return Reach()
        stored = json.loads(file.read_text())["reach"]
        return Reach(
            **stored
            | {name: tuple(stored[name]) for name in ("allow_hosts", "proxies")}
            | {
                name: Path(stored[name]) if stored[name] else None
                for name in ("tls_certificate", "tls_key")
            }
        )

    def write_settings(self, reach: Reach) -> Path:
        """Write the file that the server is started with, and return its path."""
        file = self.home / "site.json"
        own = {"localhost", "127.0.0.1", "[::1]"}
        if reach.host not in ("0.0.0.0", "::"):
            own.add(f"[{reach.host}]" if ":" in reach.host else reach.host)
        origins = {f"{reach.scheme}://{host}:{reach.port}" for host in own}
        origins |= {f"https://{host}" for host in reach.allow_hosts}
        paths = {"tls_certificate": reach.tls_certificate, "tls_key": reach.tls_key}
        write_private_json(
            file,
            {
                "home": str(self.home.resolve()),
                "host": reach.host,
                "port": reach.port,
                "hosts": sorted({*own, *reach.allow_hosts}),
                "origins": sorted(origins),
                "proxies": list(reach.proxies),
                "secure": reach.tls_certificate is not None or bool(reach.proxies),
                **{name: str(path.resolve()) if path else None for name, path in paths.items()},
                "reach": asdict(reach)
                | {name: str(path) if path else None for name, path in paths.items()},
            },
        )
        return file

    def owner(self) -> dict[str, str]:
        """Return the owner's credentials."""
        if not self.exists():
            raise ConfigError(
                f"There is no labelling site in {self.home}. Make one with `plumbline annotate "
                "up`, or name another server with --server URL."
            )
        return dict(json.loads(self.owner_file.read_text()))


def connection(home: Path) -> Connection:
    """Return the way to this machine's site, as its owner."""
    from annotation.campaign.client import Connection

    site = Site(home)
    owner = site.owner()
    return Connection(url=site.reach().local_url, api_key=owner["api_key"])


def changed(reach: Reach, given: Mapping[str, Any]) -> Reach:
    """Return how to reach a site, with what the user gave this time laid over what was."""
    return replace(reach, **{name: value for name, value in given.items() if value})


def new_password() -> str:
    """Return a password of 120 random bits that can be read out and typed."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    words = ["".join(secrets.choice(letters) for _ in range(6)) for _ in range(4)]
    return "-".join(words)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    beside = file.with_name(file.name + ".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.chmod(0o600)
    beside.replace(file)


def write_private_json(file: Path, value: Any) -> None:
    """Write JSON that only its owner can read."""
    write_private(file, json.dumps(value, indent=2) + "\n")
