"""A labelling site's folder: settings, secrets and data, for its owner's eyes only.

====================  =======================================================
``site.json``         how it is reached
``certificate.pem``   the TLS certificate it was last started with, if any
``running.json``      the server that runs now
``server.log``        what it said
``secrets/``          owner.json, session.key, attempts.json
``credentials/``      one file a person, to hand over
``campaigns/``        what was asked, and what came back
``argilla/``          Argilla's own data, argilla.db
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

if TYPE_CHECKING:
    from annotation.campaign.client import Connection

PORT = 6900
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
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
        if self.tls_certificate is not None and self.tls_key is not None:
            _check_tls(self.tls_certificate, self.tls_key)
        for name in self.allow_hosts:
            if not _HOST_NAME.fullmatch(name):
                raise ConfigError(
                    f"--allow-host is {name!r}; it takes one name as it stands in an address, such "
                    "as labels.example.org, without https:// and without a port."
                )
        for proxy in self.proxies:
            try:
                network = ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ConfigError(
                    f"--behind-proxy is {proxy!r}; it takes the proxy's address or network, such "
                    "as 10.0.0.7 or 172.18.0.0/16."
                ) from None
            if network.prefixlen == 0:
                raise ConfigError(
                    f"--behind-proxy is {proxy}, which is every address there is: passwords would "
                    "cross the network in the clear. Name the proxy's own address."
                )
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
    def settings_file(self) -> Path:
        """How it is reached; the server is started with it."""
        return self.home / "site.json"

    @property
    def certificate(self) -> Path:
        """The certificate the server was started with; its own file may be newer by now."""
        return self.home / "certificate.pem"

    @property
    def running_file(self) -> Path:
        """Which process serves, while one does."""
        return self.home / "running.json"

    def exists(self) -> bool:
        """Tell whether a site was ever made here."""
        return self.owner_file.exists()

    def reach(self) -> Reach:
        """Return how the site was last reached."""
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
        """Write the file that the server is started with."""
        own = {"localhost", "127.0.0.1", "[::1]"}
        if reach.host not in ("0.0.0.0", "::"):
            own.add(f"[{reach.host}]" if ":" in reach.host else reach.host)
        origins = {f"{reach.scheme}://{host}:{reach.port}" for host in own}
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
                "hosts": sorted({*own, *reach.allow_hosts}),
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
    """Return the way to this machine's site, as its owner."""
    from annotation.campaign.client import Connection

    site = Site(home)
    reach = site.reach()
    return Connection(
        url=reach.local_url,
        api_key=site.owner()["api_key"],
        certificate=site.certificate if reach.tls_certificate else None,
    )


def changed(reach: Reach, given: Mapping[str, Any]) -> Reach:
    """Return how to reach a site, with what the user gave this time laid over what was."""
    return replace(reach, **{name: value for name, value in given.items() if value})


def free_port() -> int:
    """Return a port that nothing listens on just now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check_tls(certificate: Path, key: Path) -> None:
    import ssl

    for file in (certificate, key):
        if not file.is_file():
            raise ConfigError(f"There is no file {file} to take TLS from.")
    try:
        # An empty password: else OpenSSL would ask for one, and so would the server later.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ConfigError(
            f"TLS cannot be made of {certificate} and {key}: {error}. They must be the certificate "
            "and its own private key, as PEM and without a password."
        ) from None


def new_password() -> str:
    """Return a password of 120 random bits that can be read out and typed."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    words = ["".join(secrets.choice(letters) for _ in range(6)) for _ in range(4)]
    return "-".join(words)


def write_private_json(file: Path, value: Any) -> None:
    """Write JSON that only its owner can read."""
    write_private(file, json.dumps(value, indent=2) + "\n")
