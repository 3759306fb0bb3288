"""Stages at once: the same artefacts however many work, and nobody left behind when one fails."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbline.config import Config
from plumbline.errors import ConfigError, DataError
from plumbline.runs import code_version, isolation
from plumbline.runs.cluster import _Followed, make_there
from plumbline.runs.isolation import StageDiedError
from plumbline.runs.make import artifact_id
from plumbline.runs.pool import Job, PoolConfig, make_all
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import stage
from plumbline.terminal import Terminal


class Knobs(Config):
    """Nothing varies."""


@stage("number")
def write_number(stage, *, number, seed=0):
    (stage.folder / "number.txt").write_text(f"{number} {seed}")
    return {"number": float(number)}


@stage("meeting")
def meet(stage, *, place, me, other):
    """Done only when the other one is there, too."""
    Path(place, me).touch()
    deadline = time.monotonic() + 20
    while not Path(place, other).exists():
        if time.monotonic() > deadline:
            raise DataError(f"{me} waited for {other} in vain")
        time.sleep(0.02)
    return {}


@stage("sleep")
def sleep(stage, *, place):
    Path(place, "pid").write_text(str(os.getpid()))
    time.sleep(120)
    return {}


@stage("broken")
def break_down(stage, *, how, after=None):
    while after is not None and not Path(after).exists():
        time.sleep(0.02)
    if how == "data":
        raise DataError("row 3 is empty")
    os.kill(os.getpid(), 9)


@stage("threads")
def count_threads(stage):
    import torch

    return {"threads": float(torch.get_num_threads())}


def a_run(folder: Path) -> Run:
    return Run(folder / "home", "run", "test", Knobs())


def numbers(count: int) -> dict[str, Job]:
    return {f"n-{n}": Job(write_number, {"number": n, "seed": 7}) for n in range(count)}


def test_the_number_of_workers_changes_nothing(tmp_path):
    runs = {workers: a_run(tmp_path / str(workers)) for workers in (1, 3)}
    made = {w: make_all(run, numbers(5), PoolConfig(workers=w)) for w, run in runs.items()}
    for name, mine in made[3].items():
        assert mine.id == made[1][name].id
        assert mine.manifest.files == made[1][name].manifest.files
        assert mine.manifest.seed == 7
    for run in runs.values():
        assert list(run.stages) == [f"n-{n}" for n in range(5)]
        assert (run.folder / "stages" / "n-4" / "number.txt").read_text() == "4 7"


def test_what_is_made_is_not_made_again(tmp_path):
    run = a_run(tmp_path)
    first = make_all(run, numbers(2), PoolConfig())
    times = [made.path.joinpath("number.txt").stat().st_mtime_ns for made in first.values()]
    second = make_all(run, numbers(3), PoolConfig(workers=2))
    assert [second[name].path.joinpath("number.txt").stat().st_mtime_ns for name in first] == times
    noted = json.loads((run.folder / "run.json").read_text())["stages"]
    assert [entry["reused"] for entry in noted.values()] == [True, True, False]


def test_two_workers_work_at_once(tmp_path):
    jobs = {
        me: Job(meet, {"place": str(tmp_path), "me": me, "other": other})
        for me, other in (("a", "b"), ("b", "a"))
    }
    assert set(make_all(a_run(tmp_path), jobs, PoolConfig(workers=2))) == {"a", "b"}


def test_where_one_fails_the_others_are_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(isolation, "_TICK_SECONDS", 0.1)
    jobs = {
        "sleep": Job(sleep, {"place": str(tmp_path)}),
        "broken": Job(break_down, {"how": "data", "after": str(tmp_path / "pid")}),
        "never": Job(write_number, {"number": 1}),
    }
    run, started = a_run(tmp_path), time.monotonic()
    with pytest.raises(DataError, match="row 3 is empty"):
        make_all(run, jobs, PoolConfig(workers=2))
    assert time.monotonic() - started < 60
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert list(run.stages) == []


def test_a_failure_that_is_borne_leaves_the_others(tmp_path):
    run, failures = a_run(tmp_path), {}
    jobs = {"broken": Job(break_down, {"how": "data"}), **numbers(1)}
    made = make_all(run, jobs, PoolConfig(), failures)
    assert list(made) == list(run.stages) == ["n-0"]
    assert str(failures["broken"]) == "row 3 is empty"


def test_a_killed_process_is_never_borne(tmp_path):
    with pytest.raises(StageDiedError, match="most likely because memory ran out"):
        make_all(a_run(tmp_path), {"x": Job(break_down, {"how": "kill"})}, PoolConfig(), {})


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stage_has_the_threads_that_are_set(tmp_path, threads):
    made = make_all(a_run(tmp_path), {"t": Job(count_threads)}, PoolConfig(threads=threads))
    assert made["t"].metrics == {"threads": threads}


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'plumbline-rlhf\[ray\]'"):
        make_all(a_run(tmp_path), numbers(1), PoolConfig(kind="ray"))


def test_a_worker_that_has_other_code_is_found_out(tmp_path):
    root = a_run(tmp_path).store.root
    with pytest.raises(ConfigError, match="other code"):
        make_there(root, "n", write_number, {"number": 1}, 1, "another version")


def test_what_a_lost_machine_said_last_may_be_cut_off(tmp_path):
    run = a_run(tmp_path)
    made_id = artifact_id(write_number, {"number": 1})
    events = run.store.root / ".partial" / f"{made_id}.events"
    events.parent.mkdir(parents=True)
    events.write_text('["begin", "lost"]\n["stage", "say", "row 1 of')
    digest = code_version.digest(write_number.__module__)
    make_there(run.store.root, "n", write_number, {"number": 1}, 1, digest)
    terminal = Terminal(record=True, width=200, file=(tmp_path / "log").open("w"))
    with _Followed(events, Reporter(terminal)) as follow:
        follow.play()
    assert f"its machine was lost; it begins again on {socket.gethostname()}" in (
        terminal.export_text()
    )


@pytest.fixture(scope="module")
def ray():
    # Half a minute on a quiet machine; on a busy one Ray's own workers may never come up.
    if os.environ.get("PLUMBLINE_TEST_RAY") != "1":
        pytest.skip("Ray is tried where PLUMBLINE_TEST_RAY=1 is set")
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_makes_the_same(tmp_path, ray):
    pool = PoolConfig(kind="ray", workers=2)
    run = a_run(tmp_path / "ray")
    theirs = make_all(run, numbers(3), pool)
    ours = make_all(a_run(tmp_path / "here"), numbers(3), PoolConfig())
    assert ray.is_initialized()
    assert [made.id for made in theirs.values()] == [made.id for made in ours.values()]
    assert all(theirs[n].manifest.files == ours[n].manifest.files for n in ours)

    failures = {}
    jobs = {"broken": Job(break_down, {"how": "data"}), **numbers(1)}
    assert list(make_all(run, jobs, pool, failures)) == ["n-0"]
    assert str(failures["broken"]) == "row 3 is empty"
    assert isinstance(failures["broken"], DataError)

    with pytest.raises(StageDiedError):
        make_all(run, {"x": Job(break_down, {"how": "kill"})}, pool)
