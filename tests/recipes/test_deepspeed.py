"""Trainings that two processes share by DeepSpeed (over gloo): the same as in one process.

With PLUMBLINE_TEST_DEEPSPEED=1 every training is made, full and LoRA, and one is killed in earnest.
"""

from __future__ import annotations

import os

import pytest

from tests.recipes.sharing import (
    FILES,
    PARTS,
    assert_as_one,
    in_processes,
    resume_each,
    train_each,
)

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install -e '.[deepspeed]'")
pytestmark = pytest.mark.slow

ALL = os.environ.get("PLUMBLINE_TEST_DEEPSPEED") == "1"
WAYS = ("zero2", "zero3")
MADE = PARTS if ALL else [("sft", "full"), ("dpo", "lora"), ("ppo", "full"), ("ppo", "lora")]
RESUMED = MADE if ALL else [("sft", "full"), ("ppo", "lora")]


def train_and_resume(stage, *, model, data, root):
    """Make all trainings of this file in one start of their processes."""
    train_each(stage, parts=MADE, model=model, data=data, root=root)
    resume_each(stage, parts=RESUMED, model=model, data=data, root=root / "resumed")
    return {}


@pytest.fixture(scope="module")
def made(base_folder, shared_data, tmp_path_factory):
    """What two processes make by each way."""
    arguments = {"model": base_folder, "data": shared_data}
    return {
        way: in_processes(train_and_resume, tmp_path_factory.mktemp(way), 2, way, **arguments)
        for way in WAYS
    }


@pytest.mark.parametrize(("part", "method"), MADE)
@pytest.mark.parametrize("way", WAYS)
def test_losses_and_weights_are_those_of_one_process(way, part, method, made, made_by_one):
    assert_as_one(part, method, (made_by_one, made[way]))


@pytest.mark.parametrize(("part", "method"), RESUMED)
@pytest.mark.parametrize("way", WAYS)
def test_a_training_that_was_stopped_ends_with_the_same_bytes(way, part, method, made):
    whole, resumed = (made[way] / name / f"{part}-{method}" for name in (".", "resumed"))
    for name in ("metrics.jsonl", FILES[method]):
        assert (resumed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes()
    (checkpoint,) = (whole / "checkpoints").glob("step-*")
    names = {file.name for file in checkpoint.iterdir()}
    assert {f"shares-{n}-of-2.safetensors" for n in range(2)} < names
    assert not any(name.endswith((".pt", ".pth", ".bin")) for name in names)
