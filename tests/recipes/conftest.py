"""One small chain from base to report, run once for all tests here by the command line itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.sharing import PARTS, in_processes, train_each, write_data
from tests.warm_start import Command

#: Small enough for seconds; every stage has several checkpoints to be killed between.
SMALL = """\
# recipe: dpo_vs_ppo
seeds: [0, 1]
world: {documents: 400, demonstrations: 90, ppo_prompts: 48}
base:
  scratch:
    vocab_size: 400
    hidden_size: 32
    layers: 2
    heads: 2
    intermediate_size: 48
    context: 384
    block: 64
    training: {max_steps: 40, batch_size: 4, checkpoint_every: 10, learning_rate: 0.003}
sft:
  training: {checkpoint_every: 2, log_every: 1, batch_size: 8, learning_rate: 0.003}
pairs:
  prompts: 60
  responses: 2
  pairs_per_prompt: 1
  sampling: {max_new_tokens: 24, batch_size: 8}
reward:
  training: {checkpoint_every: 2, log_every: 1, batch_size: 8, epochs: 1}
dpo:
  tuning: {rank: 4}
  training: {checkpoint_every: 2, log_every: 1, batch_size: 8}
  evaluations: 2
ppo:
  tuning: {rank: 4}
  iterations: 4
  batch_size: 16
  minibatch_size: 8
  checkpoint_every: 1
  evaluations: 2
  kl: {target: 2.0}
  sampling: {max_new_tokens: 24}
evaluation:
  prompts: 24
  prompts_during_training: 8
  resamples: 200
  sampling: {max_new_tokens: 24, batch_size: 4}
"""


@pytest.fixture(scope="session")
def shared_data(once) -> Path:
    """Demonstrations and preferences, for trainings that several processes share."""
    return once("data-to-share", write_data)


@pytest.fixture(scope="session")
def made_by_one(once, base_folder, shared_data) -> Path:
    """What one process trains, to compare with what several do."""
    arguments = {"parts": PARTS, "model": base_folder, "data": shared_data}
    return once("made-by-one", lambda root: in_processes(train_each, root, 1, None, **arguments))


@pytest.fixture(scope="session")
def small_config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def arguments(small_config) -> list[str]:
    """The arguments that run the small chain."""
    files = ["--config", str(small_config), "--home", "home", "--name", "small"]
    return ["run", "dpo_vs_ppo", *files]


@pytest.fixture(scope="session")
def start(arguments, warm_start):
    """Start the small chain in a folder; returns the process."""

    def go(folder: Path, *more: str) -> Command:
        return warm_start.start(*arguments, *more, cwd=folder, one_stream=True)

    return go


@pytest.fixture(scope="session")
def finished(arguments, once) -> Path:
    """The home folder of a chain that ran through undisturbed, by a program that started itself."""

    def run(folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "plumbline", *arguments],
            cwd=folder, env=os.environ | {"HF_HUB_OFFLINE": "1"}, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        (folder / "output.txt").write_text(done.stdout)

    return once("undisturbed", run) / "home"


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of that home folder, for tests that run a command there: others read it meanwhile."""
    shutil.copytree(finished, tmp_path / "home", symlinks=True)
    return tmp_path / "home"
