"""A reward server: right scores for many clients at once, a kill and a restart, another model."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from plumbline.data.records import user
from plumbline.errors import ConfigError, ModelError
from reward.server.batcher import Batcher, ClosedError, FullError, Request
from reward.server.client import RemoteScorer, content_at
from reward.server.serve import RewardServer
from reward.server.statistics import ServerStatistics


class Slow:
    """Scores a text by its length, slowly, and remembers how many came at once."""

    name = "slow"

    def __init__(self, seconds=0.002):
        self.seconds, self.sizes = seconds, []

    def score(self, prompts, responses):
        self.sizes.append(len(responses))
        time.sleep(self.seconds)
        if "refuse" in responses:
            raise ModelError("it cannot score 'refuse'")
        return [
            float("nan") if text == "nan" else len(text) + len(prompt[-1]["content"]) / 1000
            for prompt, text in zip(prompts, responses, strict=True)
        ]

    def problem_with(self, prompt):
        return "is a bad prompt" if prompt[-1]["content"] == "bad" else None


@pytest.fixture
def served():
    servers = []

    def serve(scorer=None, content="a" * 64, **options):
        servers.append(RewardServer(scorer or Slow(), content, **options).start())
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def expected(prompt, response):
    return len(response) + len(prompt) / 1000


def test_many_clients_get_their_own_scores(served):
    scorer = Slow()
    server = served(scorer, cache=False)

    def client(number):
        remote = RemoteScorer(server.url, server.content, patience=30)
        wrong = 0
        for turn in range(5):
            prompts = [f"p{number}" * (turn + 1), "q"]
            responses = ["x" * (number + turn), "y" * number]
            scores = remote.score([[user(p)] for p in prompts], responses)
            wrong += scores != [expected(*pair) for pair in zip(prompts, responses, strict=True)]
        return wrong

    with ThreadPoolExecutor(24) as pool:
        assert sum(pool.map(client, range(24))) == 0
    assert sum(scorer.sizes) == 24 * 5 * 2
    assert max(scorer.sizes) > 2  # several clients' responses were scored at once
    assert 'plumbline_reward_requests_total{status="200"} 120' in server.metrics()
    assert "plumbline_reward_responses_total 240" in server.metrics()


def test_one_bad_request_costs_the_others_nothing(served):
    server = served(Slow(0.05), cache=False)
    results = {}

    def ask(text):
        remote = RemoteScorer(server.url, server.content, patience=5)
        try:
            results[text] = remote.score([[user("p")]], [text])
        except ModelError as error:
            results[text] = str(error)

    threads = [threading.Thread(target=ask, args=(t,)) for t in ("a", "refuse", "bbb", "nan")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results["a"] == [1.001] and results["bbb"] == [3.001]
    assert "refused to score: it cannot score 'refuse'" in results["refuse"]
    assert "no finite score to 1 of 1" in results["nan"]


def test_another_model_is_noticed(served):
    server = served()
    assert content_at(server.url) == "a" * 64
    remote = RemoteScorer(server.url, "b" * 64, patience=5)
    with pytest.raises(ModelError, match="serves another model than this work began with"):
        remote.score([[user("p")]], ["r"])
    # A client that says nothing of the model sees it in the reply.
    body = {"prompts": [[user("p")]], "responses": ["r"]}
    assert httpx.post(f"{server.url}/score", json=body).json()["content"] == "a" * 64


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("no json", 400, "not JSON"),
        ([], 400, "not a JSON object"),
        ({"prompts": []}, 400, "needs the lists"),
        ({"prompts": [[user("p")]], "responses": []}, 400, "1 prompts came with 0 responses"),
        ({"prompts": [[]], "responses": ["r"]}, 400, "prompt 1 has no message"),
        ({"prompts": [[user("p")]], "responses": [None]}, 400, "response 1 is not a text"),
        ({"prompts": [[user("p")]] * 10_001, "responses": ["r"] * 10_001}, 413, "10000"),
    ],
)
def test_bad_requests_are_refused(served, body, status, words):
    content = body if isinstance(body, str) else json.dumps(body)
    reply = httpx.post(f"{served().url}/score", content=content)
    assert reply.status_code == status and words in reply.json()["error"]


def test_a_token_is_asked_for(served, monkeypatch):
    monkeypatch.delenv("PLUMBLINE_REWARD_TOKEN", raising=False)
    server = served(token="secret")
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    with pytest.raises(ModelError, match="asks for a token"):
        RemoteScorer(server.url, server.content).score([[user("p")]], ["r"])
    monkeypatch.setenv("PLUMBLINE_REWARD_TOKEN", "secret")
    assert RemoteScorer(server.url, server.content).score([[user("p")]], ["r"]) == [1.001]
    with pytest.raises(ConfigError, match="would answer anybody"):
        RewardServer(Slow(), "a", host="0.0.0.0")


def test_prompts_are_checked_there(served):
    remote = RemoteScorer(served().url, "a" * 64)
    assert remote.problem_with([user("bad")]) == "is a bad prompt"
    assert remote.problem_with([user("good")]) is None


def test_a_line_that_is_too_long_is_refused_and_waited_for():
    batcher = Batcher(Slow(0.3), ServerStatistics(), most_waiting=3)
    requests = [Request([[user("p")]] * 2, ["a", "b"]) for _ in range(2)]
    first = batcher.submit(requests[0])
    with pytest.raises(FullError):
        batcher.submit(requests[1])
    assert first.result() == [1.001, 1.001]
    batcher.close()


def test_no_server_is_said(tmp_path):
    with pytest.raises(ModelError, match="plumbline reward serve"):
        content_at("http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"within 0\.3 s"):
        RemoteScorer("http://127.0.0.1:9", "a", patience=0.3).score([[user("p")]], ["r"])
    with pytest.raises(ConfigError, match="not the address of a server"):
        RemoteScorer("localhost:8100", "a")


@pytest.fixture
def start(warm_start):
    """Start the command in a process of its own; return it and its port."""

    def go(file, port):
        process = warm_start.start(
            "reward", "serve", str(file), "--port", str(port), cwd=file.parent, one_stream=True,
            COLUMNS="200",
        )  # fmt: skip
        lines = []
        for line in process.stdout:  # libraries may say something before
            lines.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                return process, int(match[1])
        raise AssertionError(f"the server ended: {lines}")

    return go


@pytest.mark.slow
def test_a_killed_server_is_waited_for(start, tmp_path):
    file = tmp_path / "reward.yaml"
    file.write_text("terms:\n  - {kind: length, at_most: 10}\n")
    process, port = start(file, 0)
    try:
        url = f"http://127.0.0.1:{port}"
        remote = RemoteScorer(url, content_at(url), patience=60)
        long = "word " * 15  # 15 words where 10 are wanted: -0.5
        assert remote.score([[user("p")]], [long]) == [-0.5]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        scores = []
        asking = threading.Thread(target=lambda: scores.append(remote.score([[user("p")]], [long])))
        asking.start()
        process, _ = start(file, port)
        asking.join(30)
        assert scores == [[-0.5]]
        # The same port, and other terms: that is another model.
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        file.write_text("terms:\n  - {kind: length, at_most: 20}\n")
        process, _ = start(file, port)
        with pytest.raises(ModelError, match="another model"):
            remote.score([[user("p")]], [long])
    finally:
        process.kill()
        process.wait()


def test_nobody_waits_for_scores_after_the_end():
    """A client that has kept its connection asks once more."""
    batcher = Batcher(Slow(0.1), ServerStatistics())
    last = batcher.submit(Request([[user("a")]], ["b"]))
    batcher.close()
    assert len(last.result(5)) == 1
    with pytest.raises(ClosedError):
        batcher.submit(Request([[user("a")]], ["b"]))
