"""A training on two machines, which are two launchers on this one: the same as in two processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch.distributed.run

from plumbline.commands.recipe_book import execute, find
from plumbline.ports import free_port
from plumbline.runs.progress import Reporter
from plumbline.world.data import demonstrations
from tests import warm_client
from tests.recipes.killing import is_there
from tests.warm_start import ADDRESS

pytestmark = pytest.mark.slow

CONFIG = """distributed_type: MULTI_CPU
use_cpu: true
num_machines: 2
num_processes: 2
main_process_ip: 127.0.0.1
main_process_port: {port}
"""


@pytest.fixture(scope="module")
def settings(base_folder, tmp_path_factory):
    """Settings of supervised fine-tuning that is long enough to be stopped."""
    rows = tmp_path_factory.mktemp("rows") / "demonstrations.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(0, 60)))
    values = {
        "model": base_folder, "data": rows, "sft.training.max_steps": 40,
        "sft.training.batch_size": 4, "sft.training.log_every": 5,
        "sft.training.checkpoint_every": 5,
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def of_one_machine(settings, tmp_path_factory):
    """What two processes of one machine train."""
    home = tmp_path_factory.mktemp("one")
    run = execute(find("train_sft"), None, settings, home, Reporter(quiet=True), processes=2)
    return run.stages["sft"]


def command(settings, home):
    return ["run", "train_sft", "--home", str(home), "--name", "run",
            *(part for setting in settings for part in ("--set", setting))]  # fmt: skip


def test_a_lost_machine_ends_the_other_and_the_same_commands_resume(
    settings, of_one_machine, tmp_path, warm_start
):
    config = tmp_path / "machines.yaml"

    def start():
        """Start both machines; they need a port that is free by now."""
        config.write_text(CONFIG.format(port=free_port()))
        given = [*command(settings, tmp_path / "home"), "--launch", str(config)]
        return [
            warm_start.start(*given, "--machine-rank", str(n), one_stream=True, OMP_NUM_THREADS="1")
            for n in (0, 1)
        ]

    first, second = start()
    deadline = time.monotonic() + 120
    while not is_there(tmp_path / "home"):
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()
        time.sleep(0.02)
    second.kill()
    said, _ = first.communicate(60)
    assert first.returncode == 1
    assert "Machine 1 (" in said and "has ended, or cannot be reached." in said

    first, second = start()
    said, _ = first.communicate(120)
    assert first.returncode == second.wait(10) == 0, said
    assert "resumes where it was stopped" in said
    assert "Machine 1 of 2: takes part in what 127.0.0.1 runs." in second.stdout.read()
    made = tmp_path / "home" / "store" / of_one_machine.id
    for name in ("metrics.jsonl", "adapter_model.safetensors"):
        assert (made / name).read_bytes() == (of_one_machine.path / name).read_bytes()
    assert json.loads((made / "manifest.json").read_text())["machine"]["machines"] == 2


def test_torchrun_on_two_machines(settings, of_one_machine, tmp_path, warm_start):
    """With the rendezvous that `accelerate launch` uses, too."""
    client = Path(warm_client.__file__)
    launcher = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1",
                f"--master-port={free_port()}"]  # fmt: skip
    variables = {ADDRESS: warm_start.begin(), "OMP_NUM_THREADS": "1"}
    machines = [
        warm_start.start(
            *launcher, f"--node-rank={n}", str(client), *command(settings, tmp_path),
            script=Path(torch.distributed.run.__file__), one_stream=True, **variables,
        )
        for n in (0, 1)
    ]  # fmt: skip
    try:
        said = [machine.communicate(timeout=200)[0] for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert (tmp_path / "store" / of_one_machine.id / "manifest.json").is_file()
