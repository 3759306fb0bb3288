"""Stages on a Ray cluster of two nodes on this machine, one of which is killed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from plumbline.config import Config
from plumbline.errors import ConfigError, DataError
from plumbline.ports import free_port
from plumbline.runs import cluster as module
from plumbline.runs.cluster import cluster_at
from plumbline.runs.make import artifact_id
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.runs.stage import stage
from plumbline.terminal import Terminal

pytestmark = pytest.mark.slow
STEPS = 12


@stage("count")
def count(stage, *, name, place):
    """Count up, with a checkpoint after each step; note each attempt."""
    checkpoint = stage.checkpoints.load() or {"step": 0, "metrics": 0}
    stage.metrics.rewind(checkpoint["metrics"])
    with Path(place, name).open("a") as attempts:
        attempts.write(f"{os.getpid()} {checkpoint['step']}\n")
    with stage.bar(f"counting {name}", STEPS) as bar:
        for step in range(checkpoint["step"], STEPS):
            time.sleep(0.25)
            stage.metrics.log(step, {"square": step**2})
            stage.checkpoints.save(step, {"step": step + 1, "metrics": stage.metrics.position()})
            bar.update(step + 1)
    stage.say(f"{name} has counted")
    return {"steps": float(STEPS)}


@stage("broken")
def break_down(stage):
    raise DataError("row 3 is empty")


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one core each, beside a head that makes nothing."""
    # Half a minute on a quiet machine; on a busy one Ray's own workers may never come up.
    if os.environ.get("PLUMBLINE_TEST_RAY") != "1":
        pytest.skip("Ray is tried where PLUMBLINE_TEST_RAY=1 is set")
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    nodes = [made.add_node(num_cpus=1, **memory) for _ in range(2)]
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def raylet_of(pid: int) -> int:
    """Return the process of the node under which a process runs."""
    return next(p.pid for p in psutil.Process(pid).parents() if "raylet" in p.name())


def test_a_lost_machines_stage_begins_again_elsewhere(cluster, tmp_path, monkeypatch):
    made, nodes = cluster
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)

    def kill_the_node_of_a():
        file = tmp_path / "a"
        of_a = artifact_id(count, {"name": "a", "place": str(tmp_path)})
        checkpoints = tmp_path / "cluster" / "store" / ".partial" / of_a / "checkpoints"
        while not list(checkpoints.glob("step-[3-9]")):
            time.sleep(0.05)
        raylet = raylet_of(int(file.read_text().split()[0]))
        lost = next(n for n in nodes if n.all_processes["raylet"][0].process.pid == raylet)
        made.remove_node(lost, allow_graceful=False)

    terminal = Terminal(record=True, width=200, file=(tmp_path / "log").open("w"))
    killer = threading.Thread(target=kill_the_node_of_a)
    killer.start()
    runs = {}
    for home, settings in (("cluster", {"parallel": 2, "on": "ray"}), ("here", {})):
        reporter = Reporter(terminal) if settings else None
        runs[home] = Run(tmp_path / home, "run", "test", Config(), reporter, **settings)
        for name in ("a", "b"):
            runs[home].make(name, count, name=name, place=str(tmp_path))
        runs[home].finish({})
    killer.join()
    attempts = [line.split() for line in (tmp_path / "a").read_text().splitlines()]
    assert len(attempts) == 3  # two on the cluster, and the one here
    assert int(attempts[1][1]) >= 3  # it resumed
    for name, theirs in runs["cluster"].stages.items():
        ours = runs["here"].stages[name]
        assert (theirs.id, theirs.manifest.files) == (ours.id, ours.manifest.files)
    said = terminal.export_text()
    assert "a: its machine was lost; it begins again on" in said
    assert "b: b has counted" in said

    with pytest.raises(DataError, match="broken: row 3 is empty"):
        failing = Run(tmp_path / "more", "run", "test", Config(), parallel=2, on="ray")
        failing.make("broken", break_down)
        failing.finish({})
    failing.fail("failed", "broken")


def test_where_stages_cannot_run(tmp_path):
    with pytest.raises(ConfigError, match=r"--on k8s is not possible\. Give ray://HOST:PORT"):
        Run(tmp_path, "run", "test", Config(), on="k8s")


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("ray://", "names no host and port"),
        ("ray://head", "names no host and port"),
        ("ray://127.0.0.1:PORT", "No Ray cluster answers at .* refused"),
        ("ray://no-such-host.invalid:10001", "No Ray cluster answers at ray://no-such-host"),
    ],
)
def test_a_cluster_that_is_not_there_is_a_sentence_at_once(on, message):
    """Ray itself waits for half a minute, and then says that its client timed out."""
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=message):
        cluster_at(on.replace("PORT", str(free_port())))


class SlowRay:
    """Starts once two lines are said."""

    def __init__(self, said, fails=False):
        self.said, self.fails = said, fails

    def init(self, **_):
        deadline = time.monotonic() + 10
        while len(self.said) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        if self.fails:
            raise RuntimeError("no room")


def test_it_is_said_what_is_waited_for_and_for_how_long(monkeypatch):
    monkeypatch.setattr(module, "_SAY_SECONDS", 0.015)
    said: list[str] = []
    module._start(SlowRay(said), None, 2, said.append)
    first, *between, last = said
    assert first == "  waiting for a Ray cluster to start here; this may take a minute"
    assert between and set(between) == {"  0 s: still waiting for a Ray cluster to start here"}
    assert last == "  Ray answers, after 0 s"
    said.clear()
    with pytest.raises(ConfigError, match=r"No Ray cluster answers at 10\.0\.0\.1:6379"):
        module._start(SlowRay(said, fails=True), "10.0.0.1:6379", None, said.append)
    assert said[0].startswith("  waiting for Ray to answer at 10.0.0.1:6379;")
    assert not any("after" in line for line in said)
