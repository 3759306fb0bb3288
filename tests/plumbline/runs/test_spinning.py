"""How long threads spin is chosen from what others do on the machine, and never by force."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from plumbline.runs import spinning
from plumbline.runs.spinning import BUSY, QUIET, Moment, others, quota, spin_count


def test_the_cores_that_others_keep_busy_are_told_from_our_own():
    before = Moment(clock=100.0, busy=50.0, own=5.0)
    # In two seconds the cores worked for 3.4 s, 0.4 s of that for us: others had 1.5 cores.
    assert others(before, Moment(clock=102.0, busy=53.4, own=5.4)) == pytest.approx(1.5)
    assert others(before, Moment(clock=102.0, busy=50.1, own=5.4)) == 0.0  # clocks are coarse
    assert others(before, Moment(clock=100.1, busy=50.2, own=5.0)) is None  # too short to tell


@pytest.mark.parametrize(
    ("busy_cores", "allowed", "cores", "spins"),
    [
        (0.1, None, 2, QUIET), (1.5, None, 2, BUSY), (None, None, 2, QUIET),
        (0.1, 1.0, 2, BUSY), (0.1, 2.0, 2, QUIET), (0.1, 4.0, 2, QUIET),
    ],
)  # fmt: skip
def test_threads_sleep_where_others_want_the_cores_or_a_quota_is_smaller(
    busy_cores, allowed, cores, spins
):
    assert spin_count(busy_cores, allowed, cores) == spins


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_a_containers_quota_is_read_in_both_forms(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == expected


def test_the_machine_is_measured_in_seconds_of_cores():
    before = Moment.now()
    sum(range(10_000_000))
    after = Moment.now()
    assert 0 < after.own - before.own <= (after.clock - before.clock) * 1.1 + 0.02


@pytest.mark.parametrize("name", spinning._DECIDED_BY)
def test_what_the_user_has_set_stays(monkeypatch, name):
    for variable in spinning._DECIDED_BY:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    spinning.choose(since=Moment(0.0, 0.0, 0.0))
    assert dict(os.environ) == before


STAGE = """
import os
from pathlib import Path
from plumbline.config import Config
from plumbline.runs.run import Run
from plumbline.runs.stage import stage

class Nothing(Config):
    "Nothing varies."

@stage("spins")
def tell(stage):
    import torch
    count = os.environ.get("GOMP_SPINCOUNT", "none")
    (stage.folder / "told.txt").write_text(f"{count} {torch.get_num_threads()}")
    return {}

if __name__ == "__main__":
    made = Run(Path("home"), "run", "test", Nothing()).make("tell", tell)
    print((made.path / "told.txt").read_text())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
@pytest.mark.parametrize("more", [{}, {"OMP_WAIT_POLICY": "passive"}], ids=["chosen", "decided"])
def test_a_stage_spins_as_chosen_and_has_the_same_threads(tmp_path, more):
    (tmp_path / "script.py").write_text(STAGE)
    clean = {n: v for n, v in os.environ.items() if n not in spinning._DECIDED_BY}
    done = subprocess.run(
        [sys.executable, "script.py"],
        env=clean | {"OMP_NUM_THREADS": "2"} | more,
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    count, threads = done.stdout.split()
    assert count in ({str(QUIET), str(BUSY)} if not more else {"none"})
    assert threads == "2"
