"""Processes of stages: what they have imported when they start, and why they ended."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing import forkserver
from pathlib import Path

import pytest

import recipes.train_sft
from plumbline.runs import preload
from plumbline.runs.isolation import (
    StageDiedError,
    StageFailedError,
    _listen,
    process_server,
    run_isolated,
)
from plumbline.runs.processes import PATH_OF_SERVER, of_all_processes
from plumbline.runs.progress import Reporter
from plumbline.temporary import TemporaryFolder
from tests.recipes.killing import die_within_the_next_message


def test_the_server_imports_what_the_command_has(monkeypatch):
    """Or each stage would import it again, which takes longer than many a stage."""
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", [])
    process_server()
    libraries, *ours = forkserver._forkserver._preload_modules
    assert libraries == "plumbline.runs.preload"
    assert {recipes.train_sft.__name__, "sft.train", "plumbline.config"} <= set(ours)
    assert "torch" not in ours and "plumbline.__main__" not in ours
    assert set(ours) <= set(sys.modules)


def test_the_server_imports_from_where_the_command_does(monkeypatch):
    """And not from the folder where it was started, in which a user may have a file reward.py."""
    seen = []
    monkeypatch.setattr(
        forkserver, "ensure_running", lambda: seen.append(os.environ[PATH_OF_SERVER])
    )
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", [])
    process_server()
    assert json.loads(*seen) == sys.path and PATH_OF_SERVER not in os.environ
    monkeypatch.setenv(PATH_OF_SERVER, *seen)
    here = list(sys.path)
    monkeypatch.setattr(sys, "path", ["", *here])
    importlib.reload(preload)
    assert sys.path == here and PATH_OF_SERVER not in os.environ


def test_threads_may_start_the_server_at_a_time():
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(lambda _: process_server(), range(200)))) == 200


class Says:
    """A process of which it is known what it says, in turn."""

    def __init__(self, *events):
        self.end, self._other = multiprocessing.Pipe()
        self._events = list(events)
        for _ in events:
            self._other.send(None)

    def heard(self):
        self.end.recv()
        return self._events.pop(0)


def test_a_result_after_another_process_failed_is_no_result():
    first = Says(("result", {}, 0, {}))
    second = Says(("failed", "it broke", "trace"))
    with ExitStack() as bars, pytest.raises(StageFailedError, match="it broke"):
        _listen([first, second], [], Reporter(quiet=True), bars, lambda: None)


def lose_the_other(stage, *, killed):
    """One process is killed; the other says at once that it cannot reach it."""
    if int(os.environ["RANK"]) == killed:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("connection reset by peer")


@pytest.mark.parametrize("killed", [0, 1])
def test_the_process_that_was_killed_is_the_reason_and_not_the_one_that_misses_it(tmp_path, killed):
    with pytest.raises(StageDiedError, match="killed the stage's process"):
        run_isolated(
            lose_the_other, tmp_path, {"killed": killed}, Reporter(quiet=True), lambda: None,
            processes=2,
        )  # fmt: skip


def die_as_it_reports(stage):
    die_within_the_next_message()
    return {}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_is_killed_within_a_message_is_named(tmp_path, processes):
    with pytest.raises(StageDiedError, match="killed the stage's process"):
        run_isolated(
            die_as_it_reports, tmp_path, {}, Reporter(quiet=True), lambda: None,
            processes=processes,
        )  # fmt: skip


def leave_a_folder(stage, *, parent):
    made = TemporaryFolder(Path(parent))
    (made.path / "weights").write_text("0123")
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_command_that_outlives_a_killed_stage_deletes_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(StageDiedError):
        call = (leave_a_folder, tmp_path / "partial", {"parent": str(tmp_path)})
        run_isolated(*call, Reporter(quiet=True), lambda: None)
    assert not list(tmp_path.glob("plumbline-*"))


def listen_where_they_meet(stage):
    """Another program takes a port that was free as soon as it can."""
    with suppress(OSError), socket.create_server(("", int(os.environ["MASTER_PORT"]))):
        of_all_processes(None)
        return {"taken": 1.0}
    return {"found": float(len(of_all_processes(None)))}


def test_nobody_can_take_the_port_at_which_processes_find_each_other(tmp_path):
    outcome = run_isolated(
        listen_where_they_meet, tmp_path, {}, Reporter(quiet=True), lambda: None, processes=2
    )
    assert outcome.metrics == {"found": 2.0}


def is_killed(stage):
    os.kill(os.getpid(), signal.SIGKILL)


def does_nothing(stage):
    return {}


def test_a_stage_that_begins_takes_no_exit_code_of_another(tmp_path, monkeypatch):
    """Python reads those of all processes that have ended when it starts one."""
    read, numbers = forkserver.read_signed, []
    how = (tmp_path, {}, Reporter(quiet=True), lambda: None)
    another = threading.Thread(target=run_isolated, args=(does_nothing, *how))

    def read_as_another_begins(fd):
        numbers.append(fd)
        if len(numbers) == 2:  # the process's number, and now its exit code
            another.start()
            another.join(0.5)
        return read(fd)

    monkeypatch.setattr(forkserver, "read_signed", read_as_another_begins)
    with pytest.raises(StageDiedError, match="killed the stage's process"):
        run_isolated(is_killed, *how)
    another.join(30)
