"""A labelling site's folder: settings, secrets and data, which only its owner can read.

====================  =======================================================
``site.json``         how it is reached
``services.json``     PostgreSQL and Redis, where it runs on these
``certificate.pem``   the TLS certificate it was last started with, if any
``running.json``      the server that runs now
``server.log``        its log
``secrets/``          owner.json, session.key, attempts.json
``credentials/``      one file per person, to hand over
``campaigns/``        pairs, items and labels of each campaign
``argilla/``          Argilla's own data, argilla.db where it runs on SQLite
====================  =======================================================
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from annotation.private_files import write_private
from plumbline.errors import ConfigError
from plumbline.proxies import is_loopback

if TYPE_CHECKING:
    from annotation.argilla.client import Connection

PORT = 6900
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
OWNER = "owner"


@dataclass(frozen=True)
class Reach:
    """How a site is reached, as the user set it."""

    host: str = "127.0.0.1"
    port: int = PORT
    allow_hosts: tuple[str, ...] = ()
    """Names that the site answers to, in addition to this machine's own."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of the proxies in front of it; nobody else may connect."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def check(self) -> None:
        """Refuse settings that would send passwords over a network without encryption."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both --tls-cert FILE and --tls-key FILE.")
        if self.tls_certificate is not None and self.tls_key is not None:
            _check_tls(self.tls_certificate, self.tls_key)
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise ConfigError(
                    f"--allow-host is {name!r}. Give one name as it appears in an address, such as "
                    "labels.example.org, without https:// and without a port."
                )
        for proxy in self.proxies:
            try:
                network = ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ConfigError(
                    f"--behind-proxy is {proxy!r}. Give the proxy's address or network, such as "
                    "10.0.0.7 or 172.18.0.0/16."
                ) from None
            if network.prefixlen == 0:
                raise ConfigError(
                    f"--behind-proxy is {proxy}, which is every address. Passwords would cross the "
                    "network without encryption. Name the proxy's own address."
                )
        if not 0 < self.port < 65536:
            raise ConfigError(f"--port is {self.port}; ports go from 1 to 65535.")
        if not self.is_loopback and self.tls_certificate is None and not self.proxies:
            raise ConfigError(
                f"--host is {self.host}, which other machines can reach, and passwords would cross "
                "the network without encryption. Give --tls-cert and --tls-key, or put a proxy "
                "with TLS in front of the site and name it with --behind-proxy ADDRESS."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def scheme(self) -> str:
        """The scheme of the site's addresses on this machine."""
        return "https" if self.tls_certificate else "http"

    @property
    def local_url(self) -> str:
        """The address for programs on this machine."""
        anywhere = {"0.0.0.0": "127.0.0.1", "localhost": "127.0.0.1", "::": "::1"}
        return self._address(anywhere.get(self.host, self.host))

    @property
    def page_url(self) -> str:
        """The address for people."""
        if not self.allow_hosts:
            return self.local_url
        if self.proxies:
            return f"https://{self.allow_hosts[0]}"
        return self._address(self.allow_hosts[0])

    def _address(self, host: str) -> str:
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True)
class Site:
    """A labelling site, by its folder."""

    home: Path

    def prepare(self) -> None:
        """Make the folder and its secrets where they are missing."""
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
        """The folder of secrets."""
        return self.home / "secrets"

    @property
    def credentials(self) -> Path:
        """The folder of people's first passwords."""
        return self.home / "credentials"

    @property
    def temporary(self) -> Path:
        """The folder of files that the server needs only while it runs."""
        return self.home / "tmp"

    @property
    def owner_file(self) -> Path:
        """The file with the owner's name, password and API key."""
        return self.secrets / "owner.json"

    @property
    def attempts(self) -> Path:
        """The file with the counts of wrong passwords."""
        return self.secrets / "attempts.json"

    @property
    def database(self) -> Path:
        """Argilla's SQLite file."""
        return self.home / "argilla" / "argilla.db"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    @property
    def settings_file(self) -> Path:
        """The settings file with which the server is started."""
        return self.home / "site.json"

    @property
    def certificate(self) -> Path:
        """The TLS certificate with which the server was started; the original may be newer."""
        return self.home / "certificate.pem"

    @property
    def running_file(self) -> Path:
        """The file that names the server's process while it runs."""
        return self.home / "running.json"

    def exists(self) -> bool:
        """Return whether a site was ever made here."""
        return self.owner_file.exists()

    def reach(self) -> Reach:
        """Return the settings with which the site was last started."""
        if not self.settings_file.exists():
            return Reach()
        stored = json.loads(self.settings_file.read_text())["reach"]
        return Reach(
            **stored
            | {name: tuple(stored[name]) for name in ("allow_hosts", "proxies")}
            | {
                name: Path(stored[name]) if stored[name] else None
                for name in ("tls_certificate", "tls_key")
            }
        )

    def write_settings(self, reach: Reach) -> None:
        """Write the settings file with which the server is started."""
        hosts = {"localhost", "127.0.0.1", "[::1]"}
        if reach.host not in ("0.0.0.0", "::"):
            hosts.add(f"[{reach.host}]" if ":" in reach.host else reach.host)
        origins = {f"{reach.scheme}://{host}:{reach.port}" for host in hosts}
        origins |= {f"https://{host}" for host in reach.allow_hosts}
        paths = {"tls_certificate": reach.tls_certificate, "tls_key": reach.tls_key}
        if reach.tls_certificate is not None:
            write_private(self.certificate, reach.tls_certificate.read_text(errors="replace"))
        write_private_json(
            self.settings_file,
            {
                "home": str(self.home.resolve()),
                "host": reach.host,
                "port": reach.port,
                "hosts": sorted({*hosts, *reach.allow_hosts}),
                "origins": sorted(origins),
                "proxies": list(reach.proxies),
                "secure": reach.tls_certificate is not None or bool(reach.proxies),
                **{name: str(path.resolve()) if path else None for name, path in paths.items()},
                "reach": asdict(reach)
                | {name: str(path) if path else None for name, path in paths.items()},
            },
        )

    def owner(self) -> dict[str, str]:
        """Return the owner's credentials."""
        if not self.exists():
            raise ConfigError(
                f"There is no labelling site in {self.home}. Make one with `plumbline annotate "
                "up`, or name another server with --server URL."
            )
        return dict(json.loads(self.owner_file.read_text()))


def connection(home: Path) -> Connection:
    """Return the address of this machine's site, and its owner's API key."""
    from annotation.argilla.client import Connection

    site = Site(home)
    reach = site.reach()
    return Connection(
        url=reach.local_url,
        api_key=site.owner()["api_key"],
        certificate=site.certificate if reach.tls_certificate else None,
    )


def changed(reach: Reach, changes: Mapping[str, Any]) -> Reach:
    """Return settings with those changed that the user gave this time."""
    return replace(reach, **{name: value for name, value in changes.items() if value})


def _check_tls(certificate: Path, key: Path) -> None:
    import ssl

    for file in (certificate, key):
        if not file.is_file():
            raise ConfigError(f"There is no file {file} for TLS.")
    try:
        # With an empty password, OpenSSL does not ask for one; the server could not answer.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(
            f"TLS does not work with {certificate} and {key}: {error}. They must be a certificate "
            "and its own private key, in PEM format and without a password."
        ) from None


def new_password() -> str:
    """Return a password of 120 random bits that can be read out and typed."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    words = ["".join(secrets.choice(letters) for _ in range(6)) for _ in range(4)]
    return "-".join(words)


def write_private_json(file: Path, value: Any) -> None:
    """Write JSON that only its owner can read."""
    write_private(file, json.dumps(value, indent=2) + "\n")
