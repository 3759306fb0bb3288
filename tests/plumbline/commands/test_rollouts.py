"""``plumbline rollouts``: what starts, finds and stops vLLM servers.

A small program stands for vLLM.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import psutil
import pytest
from typer.testing import CliRunner

from plumbline import own_environment
from plumbline.commands.app import app
from plumbline.errors import BusyError, ConfigError, PlumblineError
from plumbline.lm.engines.vllm_process import PACKAGE, Options, Servers, command

#: It answers as vLLM does when it is ready, and has a process of its own, as vLLM has for its
#: engine. It says on standard error what it was started with.
PROGRAM = """
import http.server, json, os, subprocess, sys
kept = ("VLLM", "CUDA", "PYTHON")
variables = {name: value for name, value in os.environ.items() if name.startswith(kept)}
print(json.dumps([sys.argv[1:], variables]), file=sys.stderr, flush=True)
if "broken" in sys.argv[2]:
    print("no such model", file=sys.stderr)
    sys.exit(3)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""


@pytest.fixture
def python(tmp_path):
    """An interpreter of an environment that has vLLM."""
    package = tmp_path / "packages" / "vllm"
    (package / "entrypoints" / "cli").mkdir(parents=True)
    for folder in (package, package / "entrypoints", package / "entrypoints" / "cli"):
        (folder / "__init__.py").touch()
    (package / "entrypoints" / "cli" / "main.py").write_text(PROGRAM)
    interpreter = tmp_path / "python"
    packages = tmp_path / "packages"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return interpreter


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def servers(tmp_path, port):
    made = Servers(tmp_path / "servers")
    yield made
    made.down(port)


def started_with(servers, port):
    arguments, variables = json.loads(servers.log(port).read_text().splitlines()[0])
    return arguments, variables


def test_a_server_is_started_found_and_stopped(servers, python, port, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    options = Options("base", port=port, python=python, gpus="2,3", more=("--dtype", "float32"))
    server = servers.up(options, lambda _: None)
    assert (server.url, server.model) == (f"http://127.0.0.1:{port}", "base")
    assert servers.running(port) == server
    assert servers.all() == [server]
    assert servers.up(options, lambda _: None) == server  # it runs already
    arguments, variables = started_with(servers, port)
    assert arguments[:2] == ["serve", "base"]
    for name, value in (
        ("--host", "127.0.0.1"), ("--dtype", "float32"), ("--tensor-parallel-size", "2"),
        ("--max-lora-rank", "64"), ("--logprobs-mode", "processed_logprobs"),
    ):  # fmt: skip
        assert arguments[arguments.index(name) + 1] == value
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert variables["VLLM_SERVER_DEV_MODE"] == "1"
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert "PYTHONHASHSEED" not in variables
    with pytest.raises(BusyError, match=r"has base\. Stop it first"):
        servers.up(Options("other", port=port, python=python), lambda _: None)
    everyone = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    assert len(everyone) == 2
    assert servers.down(port)
    assert not any(each.is_running() and each.status() != "zombie" for each in everyone)
    assert servers.all() == []
    assert not servers.down(port)


def test_what_keeps_a_server_from_starting_is_said(servers, python, port):
    with pytest.raises(PlumblineError, match=r"code 3 while starting[^\0]*no such model"):
        servers.up(Options("broken", port=port, python=python), lambda _: None)
    assert servers.running(port) is None
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(PlumblineError, match=rf"cannot listen on 127\.0\.0\.1, port {port}"),
    ):
        servers.up(Options("base", port=port, python=python), lambda _: None)
    with pytest.raises(ConfigError, match="has no vLLM"):
        servers.up(Options("base", port=port, python=sys.executable), lambda _: None)
    with pytest.raises(ConfigError, match="does not start"):
        servers.up(Options("base", port=port, python=python.parent), lambda _: None)


def test_its_environment_is_made_once(monkeypatch, tmp_path):
    """pip is one that counts, and fails the first time."""
    calls = []

    def create(folder, **_):
        (folder / "bin").mkdir(parents=True)
        interpreter = folder / "bin" / "python"
        interpreter.write_text(f"#!/bin/sh\necho pip says why >&2\nexit {int(not calls)}\n")
        interpreter.chmod(0o755)
        calls.append(folder)

    monkeypatch.setattr(own_environment.venv, "create", create)
    folder, said = tmp_path / "vllm", []
    make = lambda: own_environment.interpreter_of(folder, [PACKAGE], "vLLM", said.append)  # noqa: E731
    with pytest.raises(PlumblineError, match=r"could not be made, for vLLM[^\0]*pip says why"):
        make()
    assert not folder.exists()
    assert make() == make() == folder / "bin" / "python"
    assert len(calls) == 2
    assert len(said) == 2


def test_the_commands(python, port, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    base = tmp_path / "base"
    base.mkdir()
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    up = ["rollouts", "up", "base", "--port", str(port), "--python", str(python)]
    try:
        done = run.invoke(app, [*up, "--max-model-len", "4096"])
        assert done.exit_code == 0, done.output
        assert f"ppo.rollouts.url=http://127.0.0.1:{port}" in done.output
        assert f"{base} is served" in done.output
        assert f"http://127.0.0.1:{port}  {base}" in run.invoke(app, ["rollouts", "status"]).output
    finally:
        down = run.invoke(app, ["rollouts", "down", "--port", str(port)])
    assert "is stopped" in down.output
    assert "No server runs" in run.invoke(app, ["rollouts", "status"]).output


def test_one_gpu_where_none_is_named():
    given = command(Options("base"))
    assert given[given.index("--tensor-parallel-size") + 1] == "1"
    assert os.fspath(given[-1]) == "8000"
