"""A model behind an endpoint: what is sent again, what is kept, and what is never sent."""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest

from plumbline.data.records import user
from plumbline.errors import ConfigError, ModelError
from plumbline.lm.endpoint.client import Pace
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.writer import EndpointWriter, LocalWriter, WriterEndpointConfig, Written
from tests.endpoint_server import CUT, EndpointServer, completion, told_to_wait

SECRET = "sk-not-to-be-found-4711"
PROMPTS = [[user(f"Paraphrase sentence {n}.")] for n in range(12)]
SEEDS = list(range(100, 112))


def echo(payload):
    return completion(f"Of {payload['messages'][-1]['content']}")


EXPECTED = [Written(f"Of Paraphrase sentence {n}.") for n in range(12)]


@pytest.fixture
def server(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    made = EndpointServer(echo)
    yield made
    made.close()


def writer(server, folder, **settings):
    return EndpointWriter(WriterEndpointConfig(model="m", base_url=server.url, **settings), folder)


def test_texts_come_in_the_order_of_the_prompts_and_are_asked_for_once(server, tmp_path):
    assert writer(server, tmp_path).write(PROMPTS, SEEDS) == EXPECTED
    sent = {p["messages"][0]["content"]: p for p in server.requests}["Paraphrase sentence 3."]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["seed"]) == (
        "m", 0.7, 512, 103,
    )  # fmt: skip
    assert writer(server, tmp_path).write(PROMPTS, SEEDS) == EXPECTED
    assert len(server.requests) == 12
    # Another seed or temperature is another question; how it is asked is none.
    writer(server, tmp_path, concurrency=2, timeout=30.0).write(PROMPTS[:1], [100])
    assert len(server.requests) == 12
    writer(server, tmp_path).write(PROMPTS[:1], [7])
    writer(server, tmp_path, temperature=0.1).write(PROMPTS[:1], [100])
    writer(server, tmp_path, seeded=False).write(PROMPTS[:1], [100])
    assert [p.get("seed") for p in server.requests[12:]] == [7, 100, None]


def test_what_fails_for_a_while_is_asked_again(server, tmp_path):
    """429, 500, a connection that is cut, and a page in place of JSON, for each of the prompts."""
    failures = [told_to_wait(429), told_to_wait(500), CUT, (200, b"<html>starting</html>")]
    seen: Counter = Counter()

    def flaky(payload):
        name = payload["messages"][-1]["content"]
        seen[name] += 1
        return failures[seen[name] - 1] if seen[name] <= len(failures) else echo(payload)

    server.reply = flaky
    assert writer(server, tmp_path).write(PROMPTS[:3], SEEDS[:3]) == EXPECTED[:3]
    assert set(seen.values()) == {5}


def test_nonsense_that_stays_costs_its_own_text_alone(server, tmp_path):
    bodies = {
        "Paraphrase sentence 0.": (200, b'{"choices": [{"message": '),
        "Paraphrase sentence 1.": (200, b"[[[" * 50_000),
        "Paraphrase sentence 2.": (200, {"choices": []}),
        "Paraphrase sentence 3.": (400, {"error": {"message": "too long"}}),
        "Paraphrase sentence 4.": completion("Half a", finish="length"),
        "Paraphrase sentence 5.": completion(None, refusal="No."),
        "Paraphrase sentence 6.": completion("<think>Hm.</think>\n"),
    }
    server.reply = lambda p: bodies.get(p["messages"][-1]["content"]) or echo(p)
    written = writer(server, tmp_path, retries=1).write(PROMPTS, SEEDS)
    problems = [entry.problem for entry in written[:7]]
    assert all("is not a chat completion" in problem for problem in problems[:3])
    assert "too long" in problems[3]
    assert problems[4:] == [
        "was cut off at its longest reply", "refused to write", "wrote nothing",
    ]  # fmt: skip
    assert [entry.text for entry in written[:7]] == [""] * 7
    assert written[7:] == EXPECTED[7:]


def test_settings_that_the_model_refuses_are_said_though_others_had_answers(server, tmp_path):
    writer(server, tmp_path).write(PROMPTS, SEEDS)
    server.reply = lambda p: (400, {"error": {"message": "no such temperature"}})
    with pytest.raises(ModelError, match=r"turned down all.*no such temperature.*of endpoint"):
        writer(server, tmp_path, temperature=2.0).write(PROMPTS, SEEDS)


def test_work_that_stops_in_the_middle_goes_on_from_there(server, tmp_path):
    left = iter(range(5))
    server.reply = lambda p: (
        echo(p) if next(left, None) is not None else (401, {"error": {"message": "no"}})
    )
    with pytest.raises(ModelError, match=r"api_key_env.*The same command resumes"):
        writer(server, tmp_path, concurrency=2).write(PROMPTS, SEEDS)
    server.reply = echo
    assert writer(server, tmp_path).write(PROMPTS, SEEDS) == EXPECTED
    assert set(server.answered.values()) == {1}


def test_an_endpoint_that_does_not_answer_in_time_is_named(server, tmp_path):
    def slow(payload):
        time.sleep(0.6)
        return echo(payload)

    server.reply = slow
    with pytest.raises(ModelError, match=r"No reply within endpoint\.timeout \(0\.1 s\)"):
        writer(server, tmp_path, timeout=0.1, retries=0).write(PROMPTS[:1], [0])


def test_no_more_requests_go_out_in_a_minute_than_are_allowed(server, tmp_path):
    """By a clock of our own, and by the real one with a request that is sent again."""
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(30, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        pace.wait()
    now[0] += 60
    pace.wait()
    assert slept == [2.0, 2.0]  # 30 in a minute are one in two seconds
    failures = iter([told_to_wait(500)])
    server.reply = lambda p: next(failures, None) or echo(p)
    started = time.monotonic()
    writer(server, tmp_path, requests_per_minute=600).write(PROMPTS[:3], SEEDS[:3])
    assert time.monotonic() - started > 0.29  # four requests, a tenth of a second apart


def test_the_key_is_sent_and_written_nowhere(server, tmp_path, monkeypatch):
    config = WriterEndpointConfig(model="m", base_url=server.url, api_key_env="WRITER_KEY")
    with pytest.raises(ConfigError, match="export WRITER_KEY="):
        for check in config.checks_before_work():
            check()
    monkeypatch.setenv("WRITER_KEY", SECRET)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    server.reply = lambda p: completion(f"Your key is {SECRET}.")
    (written,) = EndpointWriter(config, tmp_path).write(PROMPTS[:1], [0])
    assert written.text == "Your key is (the key)."
    assert server.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert not any("sk-another" in value for value in server.headers[0].values())
    assert all(SECRET not in file.read_text() for file in tmp_path.iterdir())
    assert SECRET not in str(config.model_dump()) + repr(config)
    server.reply = lambda p: (500, {"error": {"message": f"{SECRET} is not welcome"}})
    with pytest.raises(ModelError) as failed:
        EndpointWriter(config.model_copy(update={"retries": 0}), tmp_path).write(PROMPTS[1:2], [1])
    assert SECRET not in str(failed.value)


def test_a_model_of_this_machine_writes_by_seeds_and_says_what_it_cannot(policy):
    local = LocalWriter(policy, SamplingConfig(max_new_tokens=200))
    prompts = [[user("Hi")], [user("word " * 400)], [user("Hi")], [user("Hi")]]
    written = local.write(prompts, [1, 2, 1, 3])
    assert written[0] == written[2]
    assert "no room in the model's own context" in written[1].problem
