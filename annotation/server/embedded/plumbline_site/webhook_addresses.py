"""Webhooks go to other programs of the team, and never to a machine's own services.

An owner sets the address of a webhook. A mistake, or a stolen owner's key, must not make this
server ask a cloud's metadata service for its credentials. Addresses of this machine and of the
local network stay allowed, because listeners are there.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Metadata services of clouds outside the link-local ranges (Alibaba, Azure, Oracle, AWS by IPv6).
METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class RefusedAddressError(ValueError):
    """A webhook's address that this server does not call."""


def check_address(address: str) -> None:
    """Refuse an address of a link, of many machines, of none, or of a metadata service."""
    for form in _forms(ipaddress.ip_address(address.partition("%")[0])):
        if (
            form.is_link_local
            or form.is_multicast
            or form.is_unspecified
            or form in METADATA
            or (form.is_reserved and not form.is_loopback)
        ):
            raise RefusedAddressError(
                f"A webhook may not go to {form}. Link-local, multicast and unspecified addresses "
                "and metadata services are refused. Give the address of the program that listens."
            )


def _forms(address: _Address) -> list[_Address]:
    """Return an address, or the IPv4 addresses within it where it carries one."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner: list[_Address] = [form for form in carried if form is not None]
        if inner:
            return inner
    return [address]


def resolve(url: str) -> tuple[str, str]:
    """Return a URL's host and one address of it; refuse it where any of its addresses is refused.

    Raises `RefusedAddressError`, and `OSError` for a name that cannot be resolved.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RefusedAddressError(f"A webhook's address begins with http:// or https://: {url!r}.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    results = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    addresses = [str(result[4][0]) for result in results]
    for address in addresses:
        check_address(address)
    return parts.hostname, addresses[0]


def post(url: str, *, headers: dict[str, str], content: str, timeout: Any) -> Any:
    """Send a webhook to the very address that was checked: a name may resolve to another later."""
    import httpx

    host, address = resolve(url)
    original = httpx.URL(url)
    target = original.copy_with(host=address)
    with httpx.Client(trust_env=False, timeout=timeout, follow_redirects=False) as client:
        return client.post(
            target,
            headers={**headers, "host": original.netloc.decode("ascii")},
            content=content,
            extensions={"sni_hostname": host},
        )


def install() -> None:
    """Check addresses when a webhook is made or changed, and again whenever one is sent."""
    import asyncio
    from types import SimpleNamespace

    import httpx
    from argilla_server.contexts import webhooks
    from argilla_server.errors.future import UnprocessableEntityError
    from argilla_server.webhooks.v1 import commons

    async def check(url: str | None) -> None:
        if url is None:
            return
        try:
            await asyncio.to_thread(resolve, url)
        except RefusedAddressError as error:
            raise UnprocessableEntityError(str(error)) from None
        except OSError:
            pass  # a name that is not known yet; it is checked when it is used

    create, update = webhooks.create_webhook, webhooks.update_webhook

    async def create_webhook(db: Any, attributes: dict[str, Any]) -> Any:
        await check(attributes.get("url"))
        return await create(db, attributes)

    async def update_webhook(db: Any, webhook: Any, attributes: dict[str, Any]) -> Any:
        await check(attributes.get("url"))
        return await update(db, webhook, attributes)

    webhooks.create_webhook, webhooks.update_webhook = create_webhook, update_webhook
    commons.httpx = SimpleNamespace(post=post, Timeout=httpx.Timeout, Response=httpx.Response)
