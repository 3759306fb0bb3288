"""Requests: patience, errors that say what to do, and a key that nobody ever sees."""

from __future__ import annotations

import copy
import logging
import traceback
from types import SimpleNamespace

import httpx
import pytest

from annotation.argilla import client as module
from annotation.argilla.api import Argilla
from annotation.argilla.client import Client, Connection, RefusedError, ServerError
from annotation.campaign.connect import SiteConfig, connect
from plumbline.errors import ConfigError

KEY = "a-key-that-nobody-may-see"
URL = "http://127.0.0.1:6900"


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """A clock that pauses move on, so that patience takes no time."""
    clock = [0.0]
    taken = []

    def sleep(seconds):
        taken.append(seconds)
        clock[0] += seconds

    # The client's clock alone: threads that earlier tests left go by the true one.
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    return taken


def argilla(answers, patience=10.0):
    """A server that answers in turn with responses or exceptions, the last one for ever."""
    asked = []

    def handle(request):
        asked.append(request)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    site = Argilla(Connection(URL, KEY), patience=patience, transport=httpx.MockTransport(handle))
    return site, asked


ME = {"id": "u", "username": "owner", "role": "owner", "api_key": KEY}


def test_a_server_that_comes_back_only_delays(naps):
    refused = httpx.ConnectError("connection refused")
    broken = httpx.RemoteProtocolError("server disconnected")
    site, asked = argilla([refused, broken, httpx.Response(503), httpx.Response(200, json=ME)])
    assert site.me().name == "owner"
    assert len(asked) == 4
    assert naps == [0.1, 0.2, 0.4]
    assert asked[0].headers["x-argilla-api-key"] == KEY


def test_a_server_that_is_gone_is_an_error_that_says_what_to_do(naps):
    site, _ = argilla([httpx.ConnectError("connection refused")])
    with pytest.raises(ServerError, match=r"does not answer.*plumbline annotate up") as caught:
        site.me()
    assert 5 < sum(naps) <= 10
    assert "the same command resumes" in str(caught.value)
    with pytest.raises(ServerError):
        site.me(patience=0.05)


def test_a_server_says_when_to_come_back(naps):
    later = httpx.Response(429, headers={"retry-after": "7"}, json={"detail": "slow down"})
    site, _ = argilla([later, httpx.Response(200, json=ME)])
    site.me()
    assert naps == [7.0]
    site, asked = argilla([later], patience=5)
    with pytest.raises(ServerError, match="429 Too Many Requests slow down"):
        site.me()
    assert len(asked) == 1


def test_errors_of_the_server_are_tried_a_few_times():
    site, asked = argilla([httpx.Response(500, text="oops")], patience=1000)
    with pytest.raises(RefusedError, match="500 Internal Server Error"):
        site.me()
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not know this API key"),
        (403, "Campaigns need the owner's API key"),
        (422, "refuses GET /me: 422 Unprocessable Entity. no such thing"),
    ],
)
def test_refusals_are_told_at_once(status, words, naps):
    site, asked = argilla([httpx.Response(status, json={"detail": "no such thing"})])
    with pytest.raises(RefusedError, match=words) as caught:
        site.me()
    assert (caught.value.status, len(asked), naps) == (status, 1, [])


def test_a_refusal_survives_the_way_out_of_a_stage_s_process():
    error = copy.copy(RefusedError.with_status(403, "no"))  # by what pickling goes by
    assert (error.status, str(error)) == (403, "no")


def test_the_key_is_nowhere_to_be_read(caplog):
    caplog.set_level(logging.DEBUG)
    site, _ = argilla([httpx.Response(401, json={"detail": "no"})])
    with pytest.raises(RefusedError) as refused:
        site.me()
    gone, _ = argilla([httpx.ConnectError("refused")], patience=0)
    with pytest.raises(ServerError) as silent:
        gone.me()
    told = [repr(site), str(site), repr(Connection(URL, KEY)), str(Connection(URL, KEY))]
    told += ["".join(traceback.format_exception(e.value)) for e in (refused, silent)]
    told += [record.getMessage() for record in caplog.records]
    assert len(caplog.records) > 0
    assert not [text for text in told if KEY in text]
    found = argilla([httpx.Response(200, json={"items": [ME]})])[0].users()
    assert KEY not in repr(found)


@pytest.mark.parametrize("url", ["127.0.0.1:6900", "ftp://x", "http://", "site"])
def test_addresses_that_are_none_are_refused(url):
    with pytest.raises(ConfigError, match="Write it like"):
        Connection(url, KEY)


def test_addresses_with_a_password_are_refused_without_repeating_it():
    with pytest.raises(ConfigError, match="holds a user name or password") as caught:
        Connection("https://ana:sesame@labels.example.org", KEY)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("key", ["", "  ", "schlüssel", "two\nlines"])
def test_keys_that_cannot_be_are_refused(key):
    with pytest.raises(ConfigError, match="is empty or not plain text"):
        Connection(URL, key)


def test_a_key_would_cross_a_network_in_plain_text_only_by_http():
    assert Connection("http://10.0.0.1", KEY).is_unencrypted
    assert not Connection("https://10.0.0.1", KEY).is_unencrypted
    assert not Connection(URL, KEY).is_unencrypted


def test_an_empty_answer_is_an_empty_object():
    transport = httpx.MockTransport(lambda _: httpx.Response(204))
    assert Client(URL, {}, transport=transport).request("DELETE", "/x") == {}


def test_keys_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    monkeypatch.delenv("ARGILLA_API_KEY", raising=False)
    assert connect(SiteConfig(server=URL, api_key_file=file)).api_key == KEY
    with pytest.raises(ConfigError, match="There is no API key for"):
        connect(SiteConfig(server=URL))
    monkeypatch.setenv("ARGILLA_API_KEY", KEY)
    assert connect(SiteConfig(server=URL)).api_key == KEY
    with pytest.raises(ConfigError, match=r"cannot be read.*FileNotFoundError"):
        connect(SiteConfig(server=URL, api_key_file=tmp_path / "none"))
    with pytest.raises(ValueError, match=r"api_key_file .* has no effect here: it needs server"):
        connect(SiteConfig(home=tmp_path, api_key_file=file))
    with pytest.raises(ConfigError, match="plumbline annotate"):
        connect(SiteConfig(home=tmp_path))


def pages(records, total=None):
    """A server with these records, 500 a page."""

    def handle(request):
        offset = int(request.url.params["offset"])
        items = records[offset : offset + 500]
        return httpx.Response(200, json={"items": items, "total": total or len(records)})

    return Argilla(Connection(URL, KEY), transport=httpx.MockTransport(handle))


def test_all_pages_are_read():
    records = [{"id": str(n), "external_id": f"i-{n}"} for n in range(1201)]
    assert pages(records).item_ids("d") == {f"i-{n}" for n in range(1201)}
    assert pages([]).item_ids("d") == set()


def test_records_that_change_places_between_pages_are_read_again():
    first = [{"id": str(n), "external_id": f"i-{n}"} for n in range(600)]
    swapped = [*first[500:], *first[:500]]  # as an unstable order may have it
    calls = []

    def handle(request):
        calls.append(request)
        offset = int(request.url.params["offset"])
        order = first if len(calls) != 2 else swapped
        return httpx.Response(200, json={"items": order[offset : offset + 500], "total": 600})

    site = Argilla(Connection(URL, KEY), transport=httpx.MockTransport(handle))
    assert len(site.item_ids("d")) == 600
    assert len(calls) == 4


def test_records_that_never_show_are_an_error():
    with pytest.raises(ServerError, match=r"has 3 records.*found 2"):
        pages([{"id": str(n), "external_id": str(n)} for n in range(2)], total=3).item_ids("d")
