"""The log does not grow without end."""

from __future__ import annotations

import os
import stat

import pytest

from annotation.server.embedded.plumbline_site import logs
from annotation.server.embedded.plumbline_site.logs import rotate


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LARGEST_LOG", 100)
    file = tmp_path / "server.log"
    file.touch(mode=0o600)
    return file


def test_a_small_log_stays(log):
    log.write_text("x" * 100)
    assert rotate(log) is False
    assert rotate(log.with_name("none.log")) is False
    assert [file.name for file in log.parent.iterdir()] == ["server.log"]


def test_who_holds_it_open_goes_on_in_the_emptied_file(log):
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as server:
        server.write(b"a" * 101)
        assert rotate(log) is True
        server.write(b"after")
    assert log.read_bytes() == b"after"
    aside = log.with_name("server.log.1")
    assert aside.read_bytes() == b"a" * 101
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600


def test_the_oldest_is_removed(log):
    for letter in "abcde":
        log.write_text(letter * 101)
        rotate(log)
    contents = {file.name: file.read_text()[:1] for file in log.parent.iterdir()}
    assert contents == {
        "server.log": "", "server.log.1": "e", "server.log.2": "d", "server.log.3": "c",
    }  # fmt: skip
