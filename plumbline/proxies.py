"""Which addresses are reached through the proxy that the environment names, and which are not.

HTTP_PROXY and its relatives are for other machines: no proxy reaches the addresses of this one.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies


def is_loopback(address: str) -> bool:
    """Return whether an address, or the name of a host alone, is that of this machine."""
    number = _number(_host(address))
    return _host(address) == "localhost" if number is None else number.is_loopback


def client_options(address: str) -> dict[str, Any]:
    """Return the options of an httpx client by which it reaches an address.

    It goes straight to this machine and to what NO_PROXY names (hosts, domains, addresses,
    networks), and to all others as httpx does: through the environment's proxy, if there is one.
    Certificates are those of the environment both ways.
    """
    if not _goes_straight(address):
        return {}
    encrypted = urlsplit(address).scheme == "https"
    return {"trust_env": False, **({"verify": _certificates()} if encrypted else {})}


def _goes_straight(address: str) -> bool:
    host, number = _host(address), _number(_host(address))
    if is_loopback(address) or (number is not None and number.is_unspecified):
        return True
    named = [name.strip().lower() for name in getproxies().get("no", "").split(",")]
    if number is not None and any(number in network for network in _networks(named)):
        return True
    domains = tuple(name.removeprefix("*").lstrip(".") for name in named if name not in ("", "*"))
    places = (host, f"{host}:{urlsplit(address).port}")
    return "*" in named or any(
        place == domain or place.endswith(f".{domain}") for place in places for domain in domains
    )


def _host(address: str) -> str:
    """Return the host of an address, or the text itself where it names a host only."""
    if "://" not in address:
        return address.strip("[]").lower()
    return urlsplit(address).hostname or ""


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _networks(names: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return those names that are addresses or networks."""
    networks = []
    for name in names:
        try:
            networks.append(ipaddress.ip_network(name.strip("[]"), strict=False))
        except ValueError:
            continue
    return networks


def _certificates() -> Any:
    """Return whom an encrypted connection trusts, by SSL_CERT_FILE and SSL_CERT_DIR as well."""
    import httpx

    return httpx.create_ssl_context()
