"""Trainings whose processes share the weights (FSDP2 over gloo): the same losses as in one process.

All of them are made by one started pair of processes, and by one process alone.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from plumbline.commands.recipe_book import execute, find
from plumbline.lm.sharding import problem_with_shares
from plumbline.ports import free_port
from plumbline.runs.launch import Place
from plumbline.runs.meeting import gathered
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.taking_part import take_part
from plumbline.world.data import demonstrations
from tests.recipes.sharing import (
    FILES,
    PARTS,
    assert_as_one,
    fine_tune,
    go_on,
    in_processes,
    killed,
    settings,
    train_each,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(base_folder, shared_data, made_by_one, tmp_path_factory):
    """The folders of what one process made, and of what two made that share the weights."""
    two = in_processes(
        train_each, tmp_path_factory.mktemp("made"), 2, "fsdp2",
        parts=PARTS, model=base_folder, data=shared_data,
    )  # fmt: skip
    return made_by_one, two


@pytest.mark.parametrize(("part", "method"), PARTS)
def test_losses_and_weights_are_those_of_one_process(part, method, made):
    assert_as_one(part, method, made)


def test_ppo_goes_on_whether_its_weights_were_whole_or_in_shares(
    base_folder, shared_data, made, tmp_path
):
    """Its value model has a head that is whole in each process, beside weights in shares."""
    last_lines = {}
    for before, after in ((1, 1), (1, 2), (2, 1)):
        root = tmp_path / f"{before}-{after}"
        for method in FILES:
            shutil.copytree(made[before - 1] / f"ppo-{method}", root / f"ppo-{method}")
        in_processes(
            go_on, root, after, "fsdp2" if after > 1 else None,
            model=base_folder, data=shared_data,
        )  # fmt: skip
        for method in FILES:
            lines = read_metrics(root / f"ppo-{method}" / "out" / "metrics.jsonl")
            last_lines[before, after, method] = [line for line in lines if line["step"] == 4]
    for (before, after, method), found in last_lines.items():
        expected = last_lines[1, 1, method]
        assert len(found) == len(expected) >= 1, (before, after, method)
        for one, other in zip(expected, found, strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-4), (before, after, method)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of demonstrations."""
    file = tmp_path_factory.mktemp("rows") / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(0, 60)))
    return file


@pytest.fixture(scope="module")
def whole(base_folder, rows, tmp_path_factory):
    """What two processes train that share the weights, on one machine and never stopped."""
    return fine_tune(tmp_path_factory.mktemp("whole"), base_folder, rows, 2, "fsdp2")


def test_two_machines_share_the_weights_as_one_does(base_folder, rows, whole, tmp_path):
    """The second machine is a thread here, which starts a process of its own."""
    place = Place(2, 0, "127.0.0.1", free_port())
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(take_part, place._replace(number=1), 2, tmp_path, lambda _: None)
        with gathered(place, 2, tmp_path, lambda _: None) as nodes:
            run = execute(
                find("train_sft"), None, settings(base_folder, rows), tmp_path,
                Reporter(quiet=True), "run", processes=2, sharding="fsdp2", nodes=nodes,
            )  # fmt: skip
        second.result(30)
    made = run.stages["sft"]
    assert (made.id, made.manifest.machine["machines"]) == (whole.id, 2)
    for name in ("metrics.jsonl", FILES["full"]):
        assert (made.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_killed_training_resumes_from_the_shares(base_folder, rows, whole, tmp_path):
    arguments = (base_folder, rows, 2, "fsdp2")
    assert whole.manifest.arguments["sharding"] == "fsdp2"
    killed(tmp_path / "cut", *arguments)
    (checkpoint,) = (tmp_path / "cut").glob("**/checkpoints/step-*")
    names = {file.name for file in checkpoint.iterdir()}
    assert {f"shares-{n}-of-2.safetensors" for n in range(2)} < names
    assert not any(name.endswith((".pt", ".pth", ".bin", ".distcp")) for name in names)
    resumed = fine_tune(tmp_path / "cut", *arguments)
    for name in ("metrics.jsonl", FILES["full"]):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.fixture(scope="module")
def by_one(base_folder, rows, tmp_path_factory):
    """What one process trains."""
    return fine_tune(tmp_path_factory.mktemp("one"), base_folder, rows, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [((2,), (1,)), ((2, "fsdp2"), (1,)), ((1,), (2, "fsdp2"))],
    ids=["two whole to one", "two in shares to one", "one to two in shares"],
)
def test_another_number_of_processes_resumes(before, after, base_folder, rows, by_one, tmp_path):
    """Each reads the checkpoint of the other, whether weights are whole in it or in shares."""
    one = by_one
    killed(tmp_path / "cut", base_folder, rows, *before)
    finished = fine_tune(tmp_path / "cut", base_folder, rows, *after)
    assert (finished.id == one.id) is (after == (1,))
    assert finished.manifest.machine["processes_before"] == [before[0]]
    assert "processes_before" not in one.manifest.machine
    assert not list((tmp_path / "cut" / "store").glob("**/checkpoints"))
    lines = [read_metrics(artifact.path / "metrics.jsonl") for artifact in (one, finished)]
    losses = [[line["loss"] for line in some if "loss" in line] for some in lines]
    assert len(losses[0]) == 30
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("way", ["fsdp2", "zero3"])
def test_a_model_that_is_not_shared_out_is_refused(way, monkeypatch):
    """Each process would train a whole copy, and nothing would say so."""
    model = torch.nn.Module()
    model.base_model = torch.nn.Module()
    assert problem_with_shares(model) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("PLUMBLINE_SHARDING", way)
    assert "a whole copy of its weights" in problem_with_shares(model)
