"""Addresses that a webhook may not go to."""

from __future__ import annotations

import socket

import httpx
import pytest

from annotation.server.embedded.plumbline_site import webhook_addresses
from annotation.server.embedded.plumbline_site.webhook_addresses import (
    RefusedAddressError,
    check_address,
    resolve,
)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1",
        "ff02::1", "255.255.255.255", "240.0.0.1", "100.100.100.200", "168.63.129.16",
        "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
        "192.0.0.192",
    ],
)  # fmt: skip
def test_refused(address):
    with pytest.raises(RefusedAddressError, match="may not go to"):
        check_address(address)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.5", "8.8.8.8", "fd12::1", "2001:4860:4860::8888"],
)
def test_allowed(address):
    check_address(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data", "http://2852039166/", "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/", "http://[fe80::1]/", "http://[::ffff:a9fe:a9fe]/",
        "http://user@169.254.169.254/", "https://169.254.169.254:8443/",
    ],
)  # fmt: skip
def test_every_spelling_of_an_address_is_refused(url):
    with pytest.raises(RefusedAddressError):
        resolve(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://x", "http://", "nothing"])
def test_other_schemes_are_refused(url):
    with pytest.raises(RefusedAddressError, match="begins with"):
        resolve(url)


def _name_resolves_to(monkeypatch, *addresses):
    def getaddrinfo(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(webhook_addresses.socket, "getaddrinfo", getaddrinfo)


def test_a_name_is_refused_if_any_of_its_addresses_is(monkeypatch):
    _name_resolves_to(monkeypatch, "10.0.0.7", "169.254.169.254")
    with pytest.raises(RefusedAddressError):
        resolve("https://listener.example.org/hook")


def test_the_request_goes_to_the_address_that_was_checked(monkeypatch):
    """A name that resolves to another address a moment later changes nothing."""
    _name_resolves_to(monkeypatch, "10.0.0.7")
    seen = []

    class Client(httpx.Client):
        def __init__(self, **settings):
            assert settings["follow_redirects"] is False
            assert settings["trust_env"] is False
            super().__init__(transport=httpx.MockTransport(self._reply), **settings)

        def _reply(self, request):
            seen.append(request)
            return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    monkeypatch.setattr(httpx, "Client", Client)
    url = "https://listener.example.org:8443/hook?x=1"
    reply = webhook_addresses.post(url, headers={"webhook-id": "1"}, content="{}", timeout=1)
    assert reply.status_code == 302
    (request,) = seen
    assert str(request.url) == "https://10.0.0.7:8443/hook?x=1"
    assert request.headers["host"] == "listener.example.org:8443"
    assert request.extensions["sni_hostname"] == "listener.example.org"


def test_the_site_refuses_to_make_or_change_one(argilla_site):
    body = {"url": "http://169.254.169.254/latest", "events": ["response.created"]}
    with argilla_site.client() as client:
        refused = client.post("/webhooks", json=body)
        assert refused.status_code == 422
        assert "may not go to 169.254.169.254" in refused.text
        made = client.post("/webhooks", json={**body, "url": "http://127.0.0.1:9/"}).json()
        try:
            changed = client.patch(f"/webhooks/{made['id']}", json={"url": body["url"]})
            assert changed.status_code == 422
        finally:
            client.delete(f"/webhooks/{made['id']}")
