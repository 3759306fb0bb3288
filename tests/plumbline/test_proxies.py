"""Behind a company's proxy: servers on this machine are reached, and others through the proxy."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from annotation.argilla.client import Client
from plumbline.errors import PlumblineError
from plumbline.lm.endpoint.client import Endpoint
from plumbline.lm.endpoint.config import EndpointConfig
from plumbline.lm.engines import server_use
from plumbline.lm.engines.config import EngineConfig
from plumbline.lm.engines.vllm import VLLMEngine
from plumbline.lm.generation import SamplingConfig
from plumbline.proxies import client_options, is_loopback
from reward.server.client import content_at


@pytest.fixture
def listener():
    """Make servers that note the paths that they are asked for and answer with nothing useful."""
    made = []

    def listen():
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer()

            def log_message(self, *_):
                pass

            def answer(self):
                asked.append(self.path)
                self.rfile.read(int(self.headers.get("content-length") or 0))
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        made.append(server)
        return server.server_port, asked

    yield listen
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture
def proxy(listener, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    port, asked = listener()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    return asked


def ask_vllm(url):
    server = EngineConfig(engine="vllm", url=url).server
    VLLMEngine(SamplingConfig(), server, waits=())._send("GET", "/v1/models", None)


def end_the_use_of_vllm(url):
    server_use._end(os.open(os.devnull, os.O_RDONLY), url, [("/reset", {})])


def ask_an_endpoint(url):
    endpoint = Endpoint(EndpointConfig(model="m", base_url=url, retries=0))
    endpoint.send(endpoint.body([]))


def ask_argilla(url):
    Client(url, {}, patience=0).request("GET", "/me")


CLIENTS = [ask_vllm, end_the_use_of_vllm, ask_an_endpoint, ask_argilla, content_at]


@pytest.mark.parametrize("ask", CLIENTS)
def test_every_client_goes_straight_to_this_machine_and_through_the_proxy_to_others(
    ask, proxy, listener
):
    port, asked = listener()
    for url in (f"http://127.0.0.1:{port}", "http://elsewhere.invalid:81"):
        with suppress(PlumblineError):  # nothing useful answers
            ask(url)
    assert len(asked) == 1 and asked[0].startswith("/")
    assert len(proxy) == 1 and proxy[0].startswith("http://elsewhere.invalid:81/")


@pytest.mark.parametrize(
    ("names", "url", "straight"),
    [
        ("", "http://10.1.2.3:8000", False),
        ("", "http://[::1]:8000", True),
        ("", "http://0.0.0.0:8000", True),
        ("gpu.example", "http://gpu.example:8000", True),
        ("gpu.example", "http://other.example", False),
        (".corp.example", "http://gpu.corp.example", True),
        ("*.corp.example, x", "https://gpu.corp.example", True),
        ("gpu.example:9000", "http://gpu.example:8000", False),
        ("gpu.example:8000", "http://gpu.example:8000", True),
        ("10.0.0.0/8", "http://10.1.2.3:8000", True),
        ("10.0.0.0/8", "http://11.1.2.3:8000", False),
        ("fd00::/8", "http://[fd00::5]:8000", True),
        ("*", "http://elsewhere.example", True),
    ],
)
def test_what_no_proxy_names_is_reached_straight(names, url, straight, proxy, monkeypatch):
    monkeypatch.setenv("NO_PROXY", names)
    assert (client_options(url).get("trust_env") is False) == straight


def test_a_proxy_that_httpx_cannot_use_is_in_nobodys_way_here(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "unknown://127.0.0.1:1")
    with pytest.raises(ValueError):
        httpx.Client(**client_options("http://elsewhere.invalid"))
    httpx.Client(**client_options("http://127.0.0.1:1")).close()


def test_straight_ways_trust_the_certificates_that_the_environment_names(proxy, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(FileNotFoundError):
        client_options("https://127.0.0.1:1")


def test_loopback_is_told_from_other_machines():
    assert is_loopback("http://127.0.0.1:1") and is_loopback("http://[::1]:1")
    assert is_loopback("http://localhost") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("http://10.0.0.1") and not is_loopback("http://localhost.example.org")
    assert not is_loopback("") and not is_loopback("0.0.0.0")
