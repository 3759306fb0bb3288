"""Killed in the middle of every stage, the same command ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from plumbline.runs.artifacts import Store
from plumbline.runs.run import RunRecord

pytestmark = pytest.mark.slow

#: Stages that take long enough to be killed in, and what must lie there when they are.
LONG = {
    "base": "checkpoints/step-*",
    "sft": "checkpoints/step-*",
    "samples/sft": "out",
    "pairs": "shards/*.json",
    "reward": "checkpoints/step-*",
    "dpo/seed-0": "checkpoints/step-*",
    "ppo/seed-0": "checkpoints/step-*",
    "evaluation/dpo/seed-0": "out",
}
#: What is killed and compared is the first seed's; a second one would do the same again.
ONE_SEED = ("--set", "seeds=[0]")


def stage_of(home: Path) -> str | None:
    try:
        return json.loads((home / "small" / "run.json").read_text())["stage"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def has_begun(home: Path, stage: str) -> bool:
    return stage_of(home) == stage and any(
        any(partial.glob(LONG[stage])) for partial in (home / "store" / ".partial").glob("*-*/")
    )


def kill(process) -> None:
    """Kill the command alone, as the system would: its children must notice by themselves."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, f"left behind: {alive}"


def test_a_chain_killed_in_every_stage_equals_an_undisturbed_one(start, finished, tmp_path):
    home = tmp_path / "home"
    killed = []
    for stage in LONG:
        process = start(tmp_path, *ONE_SEED)
        deadline = time.monotonic() + 240
        while process.poll() is None and not has_begun(home, stage):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if process.poll() is None:
            kill(process)
            killed.append(stage)
        else:
            assert process.returncode == 0, process.stdout.read()
            break
    assert len(killed) >= 6, killed

    process = start(tmp_path, *ONE_SEED)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "begins again: it had kept nothing yet" in output or "resumes where" in output

    ours, theirs = (RunRecord(path / "small") for path in (home, finished))
    same = [name for name in ours.artifacts if name != "report"]
    for name in same:
        mine, other = ours.artifacts[name], theirs.store.find(ours.artifacts[name].id)
        assert other is not None, f"{name} was made from something else"
        # An adapter's config names the base's folder, which is another here.
        different = [
            file
            for file, entry in mine.manifest.files.items()
            if entry != other.manifest.files[file] and not _differs_by_folder(mine, other, file)
        ]
        assert different == [], name
        assert mine.metrics == other.metrics
    assert Store(home / "store").get("report").metrics


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_stops_at_once_and_says_how_to_go_on(start, tmp_path, times):
    process = start(tmp_path)
    while not has_begun(tmp_path / "home", "base"):
        time.sleep(0.05)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    if times > 1:
        assert "Traceback" not in output
    assert "The same command resumes from here." in output
    assert RunRecord(tmp_path / "home" / "small").status == "interrupted"


def _differs_by_folder(mine, other, file: str) -> bool:
    if not file.endswith("adapter_config.json"):
        return False
    one, two = (json.loads((a.path / file).read_text()) for a in (mine, other))
    return {k for k in one if one[k] != two[k]} == {"base_model_name_or_path"}
