"""Trainings that two processes share by DeepSpeed (over gloo): the same as in one process.

With PLUMBLINE_TEST_DEEPSPEED=1 every training is made, full and LoRA, and one is killed in earnest.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from plumbline.errors import ModelError
from plumbline.runs.metrics import read_metrics
from plumbline.training.zero import ZeroOptimizer
from plumbline.world.data import demonstrations
from tests.recipes.sharing import (
    FILES,
    PARTS,
    assert_as_one,
    fine_tune,
    go_on,
    in_processes,
    killed,
    resume_each,
    train_each,
)

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install -e '.[deepspeed]'")
pytestmark = pytest.mark.slow

ALL = os.environ.get("PLUMBLINE_TEST_DEEPSPEED") == "1"
WAYS = ("zero2", "zero3")
SOME = [("sft", "full"), ("dpo", "full"), ("ppo", "lora")]
MADE = dict.fromkeys(WAYS, PARTS if ALL else SOME)
RESUMED = {way: PARTS if ALL else [("sft", "full")] for way in WAYS}
if not ALL:
    MADE["zero2"] = [*SOME, ("undone", "full")]
    RESUMED["zero2"] = [("sft", "full"), ("ppo", "lora")]


def each_of(parts):
    return [(way, part, method) for way in WAYS for part, method in parts[way]]


def train_and_resume(stage, *, way, model, data, root):
    """Make all trainings of a way in one start of its processes."""
    train_each(stage, parts=MADE[way], model=model, data=data, root=root)
    resume_each(stage, parts=RESUMED[way], model=model, data=data, root=root / "resumed")
    return {}


@pytest.fixture(scope="module")
def made(base_folder, shared_data, tmp_path_factory):
    """What two processes make by each way."""
    arguments = {"model": base_folder, "data": shared_data}
    return {
        way: in_processes(
            train_and_resume, tmp_path_factory.mktemp(way), 2, way, way=way, **arguments
        )
        for way in WAYS
    }


@pytest.mark.parametrize(("way", "part", "method"), each_of(MADE))
def test_losses_and_weights_are_those_of_one_process(way, part, method, made, made_by_one):
    assert_as_one(part, method, (made_by_one, made[way]))


@pytest.mark.parametrize(("way", "part", "method"), each_of(RESUMED))
def test_a_training_that_was_stopped_ends_with_the_same_bytes(way, part, method, made):
    whole, resumed = (made[way] / name / f"{part}-{method}" for name in (".", "resumed"))
    for name in ("metrics.jsonl", FILES[method]):
        assert (resumed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    (checkpoint,) = (whole / "checkpoints").glob("step-*")
    names = {file.name for file in checkpoint.iterdir()}
    assert {f"shares-{n}-of-2.safetensors" for n in range(2)} < names
    assert not any(name.endswith((".pt", ".pth", ".bin")) for name in names)


def test_moments_that_are_not_shared_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    optimizer, weights = object.__new__(ZeroOptimizer), [torch.nn.Parameter(torch.zeros(40, 40))]
    optimizer.param_groups = [{"params": weights}]
    for own in (800, 1600):
        optimizer._parts = SimpleNamespace(count=lambda weight, own=own: own)
        with pytest.raises(ModelError, match="1600 of 1600") if own > 800 else nullcontext():
            optimizer._check(weights)


def go_on_from(before, after, root, made, base_folder, shared_data):
    """Take up a training by PPO with another way and number of processes; return its last lines."""
    way, processes = after
    for method in FILES:
        shutil.copytree(made[before] / f"ppo-{method}", root / f"ppo-{method}")
    in_processes(go_on, root, processes, way, model=base_folder, data=shared_data)
    return [
        line
        for method in FILES
        for line in read_metrics(root / f"ppo-{method}" / "out" / "metrics.jsonl")
        if line["step"] == 4
    ]


@pytest.mark.skipif(not ALL, reason="all ways are tried where PLUMBLINE_TEST_DEEPSPEED=1 is set")
def test_another_way_or_number_of_processes_resumes(
    base_folder, shared_data, made, made_by_one, tmp_path
):
    two = in_processes(
        train_each, tmp_path / "two", 2, "fsdp2",
        parts=[("ppo", method) for method in FILES], model=base_folder, data=shared_data,
    )  # fmt: skip
    folders = {**made, None: made_by_one, "fsdp2": two}
    arguments = (folders, base_folder, shared_data)
    expected = go_on_from(None, (None, 1), tmp_path / "one", *arguments)
    for before, after in (
        ("zero2", (None, 1)), ("zero3", (None, 1)), ("zero2", (None, 2)),
        (None, ("zero2", 2)), (None, ("zero3", 2)), ("zero2", ("zero2", 3)),
        ("zero3", ("zero3", 3)), ("zero2", ("zero3", 2)), ("zero3", ("zero2", 2)),
        ("zero3", ("fsdp2", 2)), ("fsdp2", ("zero3", 2)), ("fsdp2", ("zero2", 2)),
    ):  # fmt: skip
        found = go_on_from(before, after, tmp_path / f"{before}-{after}", *arguments)
        assert len(found) == len(expected) >= 2, (before, after)
        for one, other in zip(expected, found, strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-4), (before, after)


@pytest.mark.skipif(not ALL, reason="one is killed where PLUMBLINE_TEST_DEEPSPEED=1 is set")
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_training_resumes(way, base_folder, tmp_path):
    rows = tmp_path / "demonstrations.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(0, 60)))
    whole = fine_tune(tmp_path / "whole", base_folder, rows, 2, way)
    killed(tmp_path / "cut", base_folder, rows, 2, way)
    resumed = fine_tune(tmp_path / "cut", base_folder, rows, 2, way)
    assert resumed.manifest.arguments["sharding"] == way
    for name in ("metrics.jsonl", FILES["full"]):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
