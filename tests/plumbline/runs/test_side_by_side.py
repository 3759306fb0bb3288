"""Stages side by side: as soon as their inputs are made, and with the results of one by one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from plumbline.config import Config
from plumbline.errors import ConfigError, DataError
from plumbline.runs import isolation
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run, RunRecord
from plumbline.runs.side_by_side import SideBySide
from plumbline.runs.stage import stage
from plumbline.terminal import Terminal


class Knobs(Config):
    """Nothing varies."""


@stage("number")
def write_number(stage, *, number, inputs=()):
    below = [float((made.path / "number.txt").read_text()) for made in inputs]
    total = number + sum(below)
    (stage.folder / "number.txt").write_text(str(total))
    stage.metrics.log(1, {"total": total})
    return {"number": total}


@stage("meeting")
def meet(stage, *, place, me, other):
    """Done only when the other one is there, too."""
    Path(place, me).touch()
    deadline = time.monotonic() + 30
    while not Path(place, other).exists():
        if time.monotonic() > deadline:
            raise DataError(f"{me} waited for {other} in vain")
        time.sleep(0.02)
    return {}


@stage("broken")
def break_down(stage, *, after):
    while not Path(after).exists():
        time.sleep(0.02)
    raise DataError("row 3 is empty")


@stage("slow")
def slow(stage, *, place):
    """Done once it is said in the log that another stage failed."""
    Path(place, "pid").write_text(str(os.getpid()))
    deadline = time.monotonic() + 30
    while "✗" not in Path(place, "log").read_text("utf-8") and time.monotonic() < deadline:
        time.sleep(0.02)
    return {"slow": 1.0}


@stage("sleep")
def sleep(stage, *, place):
    Path(place, "pid").write_text(str(os.getpid()))
    time.sleep(120)
    return {}


def a_run(folder, parallel=2, reporter=None):
    return Run(folder / "home", "run", "test", Knobs(), reporter, parallel=parallel)


def recipe(run):
    """A diamond: two numbers of one, and their sum; and the same call under another name."""
    one = run.make("one", write_number, number=1)
    left = run.make("left", write_number, number=2, inputs=[one])
    right = run.make("right", write_number, number=3, inputs=[one])
    again = run.make("again", write_number, number=3, inputs=[one])
    total = run.make("sum", write_number, number=4, inputs={"of": [left, right]}["of"])
    run.make("page", write_number, number=float(total.metrics["number"]), inputs=[again])
    run.finish({})


def test_the_same_bytes_as_one_after_the_other(tmp_path):
    runs = {n: a_run(tmp_path / str(n), n) for n in (1, 3)}
    for run in runs.values():
        recipe(run)
    assert runs[3].stages["sum"].metrics == {"number": 11.0}  # 4 + (2 + 1) + (3 + 1)
    records = {n: RunRecord(run.folder) for n, run in runs.items()}
    assert list(records[3].artifacts) == list(records[1].artifacts)
    for name, one in records[1].artifacts.items():
        other = records[3].artifacts[name]
        assert (other.id, other.manifest.files) == (one.id, one.manifest.files)
    lines = [(run.folder / "metrics.jsonl").read_bytes() for run in runs.values()]
    assert lines[0] == lines[1]
    assert records[3].status == "finished"


def test_two_stages_run_at_once(tmp_path):
    run = a_run(tmp_path)
    for me, other in (("a", "b"), ("b", "a")):
        run.make(me, meet, place=str(tmp_path), me=me, other=other)
    run.finish({})
    assert set(run.stages) == {"a", "b"}


def test_a_stage_that_fails_is_named_and_the_others_come_to_their_end(tmp_path):
    terminal = Terminal(record=True, width=200, file=(tmp_path / "log").open("w"))
    run = a_run(tmp_path, reporter=Reporter(terminal))
    run.make("long", slow, place=str(tmp_path))
    broken = run.make("broken", break_down, after=str(tmp_path / "pid"))
    run.make("after", write_number, number=1, inputs=[broken])
    with pytest.raises(DataError, match=r"^broken: row 3 is empty$"):
        run.finish({})
    run.fail("failed", "broken")
    said = terminal.export_text()
    assert "✗ broken" in said
    assert "long will be finished" in said
    assert list(RunRecord(run.folder).artifacts) == ["long"]  # "after" never began
    with pytest.raises(DataError, match="broken"):  # and no further stage begins
        run.make("more", write_number, number=5)


def test_what_runs_is_stopped_with_the_run_and_known_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "_TICK_SECONDS", 0.1)
    run = a_run(tmp_path)
    run.make("long", sleep, place=str(tmp_path))
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(RunRecord(run.folder).making) == ["long"]
    pid = int((tmp_path / "pid").read_text())
    run.fail("interrupted", "by the keyboard")
    assert not psutil.pid_exists(pid)
    assert not [thread for thread in threading.enumerate() if thread in run._others._threads]


class ClosedTerminal(Terminal):
    """What is printed to goes: `plumbline run … | head` has read enough."""

    def print(self, *objects, **options):
        raise SystemExit(1)  # as rich has it


@pytest.mark.timeout(30)
@pytest.mark.parametrize("error", [DataError("row 3 is empty"), None])
def test_a_stage_ends_also_where_nobody_reads_what_is_said_of_it(tmp_path, error):
    stages = SideBySide(2, 0, Reporter(ClosedTerminal()), lambda *_: None)

    def make(reporter, variables, tick):
        if error is not None:
            raise error
        reporter.say("a line")

    stages.submit("a", (tmp_path / "a", "x"), make, {})
    with pytest.raises(type(error) if error is not None else SystemExit):
        stages.finish()


def test_each_stage_has_a_gpu_of_its_own(tmp_path):
    """Two GPUs are shared by three stages, one of which has two processes."""
    seen, done = [], threading.Barrier(2, timeout=20)
    stages = SideBySide(2, 2, Reporter(quiet=True), lambda *_: None)

    def make(name, meets):
        def of_stage(reporter, variables, tick):
            seen.append((name, variables["CUDA_VISIBLE_DEVICES"]))
            if meets:
                done.wait()
            return None, False

        return of_stage

    for name, processes in (("a", 1), ("b", 1), ("both", 2)):
        stages.submit(name, (tmp_path / name, "x"), make(name, processes == 1), {}, processes)
    stages.finish()
    assert sorted(seen[:2]) == [("a", "0"), ("b", "1")]
    assert seen[2] == ("both", "0,1")
    with pytest.raises(ConfigError, match="--parallel 3 is set, and there are 2 GPUs"):
        SideBySide(3, 2, Reporter(quiet=True), lambda *_: None)
