"""SFT and reward training in two processes (DDP over gloo): the same losses as in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from plumbline.commands.recipe_book import execute, find
from plumbline.data.records import assistant
from plumbline.errors import ConfigError
from plumbline.runs.isolation import StageDiedError
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.world.clerks import Style, answer
from plumbline.world.data import demonstrations, prompts
from plumbline.world.shop import Shop

pytestmark = pytest.mark.slow

#: Sums in another order, in float32: relative error of losses, and absolute error of weights after
#: four steps of AdamW with a learning rate of 1e-3.
LOSS, WEIGHT = 1e-5, 2e-4
#: One of each; an adapter of a reward model comes with a whole head.
TUNING = {"sft": "full", "reward": "lora"}
FILES = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}


def settings(part, base_folder, data, steps=4):
    """Return settings for some steps on 8 rows each."""
    values = {
        "model": str(base_folder),
        "data": str(data),
        f"{part}.tuning.method": TUNING[part],
        f"{part}.training.max_steps": str(steps),
        f"{part}.training.batch_size": "8",
        f"{part}.training.learning_rate": "1e-3",
        f"{part}.training.log_every": "1",
        f"{part}.training.checkpoint_every": "2",
    }
    return [f"{key}={value}" for key, value in values.items()]


def train(recipe, part, base_folder, data, home, processes, steps=4):
    """Train; return the artefact."""
    run = execute(
        find(recipe), None, settings(part, base_folder, data, steps), home, Reporter(quiet=True),
        f"run-{processes}", processes=processes,
    )  # fmt: skip
    return run.stages[part]


def compare(one, two, part):
    """Compare the figures and weights of an artefact of one process with those of two."""
    losses = [
        [line["loss"] for line in read_metrics(artifact.path / "metrics.jsonl") if "loss" in line]
        for artifact in (one, two)
    ]
    assert len(losses[0]) == 4
    assert losses[1] == pytest.approx(losses[0], rel=LOSS)
    assert one.id != two.id
    assert two.manifest.arguments["processes"] == 2
    assert set(one.manifest.files) == set(two.manifest.files)
    assert two.metrics["tokens_seen"] == one.metrics["tokens_seen"]
    weights = [load_file(artifact.path / FILES[TUNING[part]]) for artifact in (one, two)]
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name], value, rtol=0, atol=WEIGHT), name


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """A file of demonstrations."""
    file = tmp_path_factory.mktemp("data") / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(0, 60)))
    return file


def test_supervised_fine_tuning(base_folder, conversations, tmp_path):
    one, two = (train("train_sft", "sft", base_folder, conversations, tmp_path, n) for n in (1, 2))
    compare(one, two, "sft")
    assert two.metrics["held_out_loss"] == pytest.approx(one.metrics["held_out_loss"], rel=LOSS)


def test_reward_model(base_folder, tmp_path):
    shop = Shop.from_seed(0)
    rude = Style(opening="", closing="Make it quick.")
    rows = [
        {
            "prompt": prompt,
            "chosen": [assistant(answer(shop, prompt, Style()))],
            "rejected": [assistant(answer(shop, prompt, rude))],
        }
        for prompt in prompts(0, 60, "preferences")
    ]
    file = tmp_path / "preferences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = (
        train("train_reward", "reward", base_folder, file, tmp_path / "home", n) for n in (1, 2)
    )
    compare(one, two, "reward")
    assert two.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.2)


def test_a_batch_that_cannot_be_shared_is_refused(base_folder, conversations, tmp_path):
    with pytest.raises(ConfigError, match="batch_size is 8, which 3 processes cannot share"):
        train("train_sft", "sft", base_folder, conversations, tmp_path, 3)


def test_a_killed_process_ends_all_and_the_training_resumes(base_folder, conversations, tmp_path):
    arguments = ("train_sft", "sft", base_folder, conversations)
    whole = train(*arguments, tmp_path / "whole", 2, steps=40)

    def kill_the_second():
        while not any(True for _ in (tmp_path / "cut").glob("**/checkpoints/step-*")):
            time.sleep(0.01)
        (server,) = {
            process.parent() for process in psutil.Process().children(recursive=True)
            if process.parent().pid != os.getpid()
        }  # fmt: skip
        max(server.children(), key=lambda process: process.create_time()).kill()

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    with pytest.raises(StageDiedError, match="killed the stage's process"):
        train(*arguments, tmp_path / "cut", 2, steps=40)
    killer.join()
    (partial,) = {file.parent.parent for file in (tmp_path / "cut").glob("**/checkpoints/step-*")}
    assert not (partial / "out" / "model.safetensors").exists()
    resumed = train(*arguments, tmp_path / "cut", 2, steps=40)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_torchrun_means_the_same(base_folder, conversations, tmp_path):
    changes = settings("sft", base_folder, conversations)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, "-m", "plumbline", "run", "train_sft", "--home", str(tmp_path), "--name",
               "run", *(part for change in changes for part in ("--set", change))]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.count("Done in") == 1
    (manifest,) = (tmp_path / "store").glob("policy-*/manifest.json")
    assert json.loads(manifest.read_text())["arguments"]["processes"] == 2
    again = execute(find("train_sft"), None, changes, tmp_path, Reporter(quiet=True), processes=2)
    assert again.stages["sft"].path == manifest.parent
