"""Several processes: what is asked for, what a launcher started, and what is refused."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from plumbline.commands.app import main
from plumbline.config import Config
from plumbline.errors import ConfigError, ModelError
from plumbline.runs import launch, processes
from plumbline.runs.run import Run
from plumbline.runs.stage import stage
from plumbline.training.processes import share_of_batch, use_one_gpu

TORCHRUN = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0", "ROLE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Set variables, and put everything back that `adopt_launcher` removes."""

    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    ("kind", "number", "message"),
    [
        ("fsdp2", 2, "--launch fsdp2 is not possible. What works today is `--launch ddp"),
        ("zero3", 2, "--launch zero3 is not possible"),
        (None, 2, "--processes 2 without --launch is not possible"),
        ("ddp", None, "needs --processes N"),
        ("ddp", 1, "needs --processes N"),
    ],
)
def test_what_cannot_be_asked_for(kind, number, message):
    with pytest.raises(ConfigError, match=message):
        launch.processes_of(kind, number)


def test_options():
    assert launch.processes_of(None, None) == 1
    assert launch.processes_of("ddp", 3) == 3


def test_each_process_needs_a_gpu_where_there_are_any(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert launch.processes_of("ddp", 2) == 2
    with pytest.raises(ConfigError, match="3 processes are asked for, and there are 2 GPUs"):
        launch.processes_of("ddp", 3)


def test_a_launcher_is_adopted_and_its_variables_are_gone(environment):
    environment(**TORCHRUN)
    assert launch.adopt_launcher() == (1, 2)
    assert not set(TORCHRUN) & set(os.environ)
    assert launch.adopt_launcher() == (0, 1)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN | {"ACCELERATE_USE_FSDP": "true"}, "asks for FSDP"),
        ({"ACCELERATE_USE_FSDP": "true"}, "asks for FSDP"),
        (TORCHRUN | {"ACCELERATE_USE_DEEPSPEED": "true"}, "asks for DeepSpeed"),
        (TORCHRUN | {"WORLD_SIZE": "4"}, "4 processes on several machines"),
        # accelerate launch with a config of several processes on a CPU starts a single one.
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, "and started one"),
    ],
)
def test_launches_that_would_train_something_else(environment, variables, message):
    environment(**variables)
    with pytest.raises(ConfigError, match=message):
        launch.adopt_launcher()


def test_a_program_of_ones_own_in_several_processes_is_refused(environment, tmp_path):
    environment(**TORCHRUN)
    with pytest.raises(ConfigError, match="in 2 processes, each of which would train a copy"):
        Run(tmp_path, "run", "test", Config())


@stage("policy", trains_in="one process")
def alone(stage):
    return {}


def test_a_training_that_cannot_be_shared_is_refused(tmp_path):
    run = Run(tmp_path, "run", "test", Config(), processes=2)
    with pytest.raises(ConfigError, match="alone cannot train in 2 processes"):
        run.make("policy", alone)
    assert run.stages == {}


ALONE = """\"\"\"Data alone.\"\"\"
from plumbline.config import Config
from sft.build import build_demonstrations
CONFIG = Config
def main(run, config):
    return {}
"""
MY_TRAINING = """\"\"\"A training of one's own.\"\"\"
from plumbline.config import Config
from plumbline.runs.stage import stage
from plumbline.training.processes import share_of_batch, use_one_gpu
CONFIG = Config
@stage("policy", trains_in="one process")
def my_training(stage):
    return {}
def main(run, config):
    return {}
"""


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (ALONE, "has no stage that several processes share"),
        (MY_TRAINING, "my_training cannot train in 2 processes"),
    ],
)
def test_a_recipe_is_refused_before_it_runs(script, message, tmp_path, capsys):
    recipe, home = tmp_path / "my_recipe.py", tmp_path / "home"
    recipe.write_text(script)
    with pytest.raises(SystemExit) as raised:
        main(["run", str(recipe), "--launch", "ddp", "--processes", "2", "--home", str(home)])
    assert raised.value.code == ConfigError.exit_code
    assert message in capsys.readouterr().err
    assert not home.exists()


@pytest.mark.parametrize(
    ("asked", "found", "kind", "good"),
    [
        ("1", 1, DistributedType.NO, True),
        ("2", 2, DistributedType.MULTI_CPU, True),
        ("2", 2, DistributedType.MULTI_GPU, True),
        ("2", 1, DistributedType.NO, False),  # two copies, each on its own
        ("1", 2, DistributedType.MULTI_CPU, False),
        ("2", 2, DistributedType.FSDP, False),
        ("2", 2, DistributedType.DEEPSPEED, False),
    ],
)
def test_a_trainer_is_what_was_asked_for(asked, found, kind, good, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", asked)
    accelerator = SimpleNamespace(num_processes=found, distributed_type=kind)
    if good:
        processes.check_processes(accelerator)
    else:
        with pytest.raises(ModelError, match=f"{asked} processes were to share"):
            processes.check_processes(accelerator)


@pytest.mark.parametrize(("seen", "used"), [(0, 0), (1, 1), (4, 1)])
def test_a_single_process_uses_one_gpu(seen, used):
    arguments = SimpleNamespace(n_gpu=seen)
    use_one_gpu(arguments)
    assert arguments._n_gpu == used


def test_the_share_of_a_batch(monkeypatch):
    assert share_of_batch(8) == 8
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert share_of_batch(8) == 2
    with pytest.raises(ConfigError, match="batch_size is 6, which 4 processes cannot share"):
        share_of_batch(6)
