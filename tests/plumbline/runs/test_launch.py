"""Several processes: what is asked for, what a launcher started, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType

from plumbline.commands.app import main
from plumbline.config import Config
from plumbline.errors import ConfigError, ModelError
from plumbline.runs import launch, processes
from plumbline.runs.accelerate_configs import SHIPPED, check_settings
from plumbline.runs.launch import Launch, Options, Place
from plumbline.runs.run import Run
from plumbline.runs.stage import stage
from plumbline.training.config import TrainingConfig
from plumbline.training.preflight import settings_of_trainings
from plumbline.training.processes import share_of_batch, use_one_gpu
from rl.config import PPOConfig
from sft.config import SFTConfig

TORCHRUN = {
    "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0", "ROLE_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip

#: What an accelerate config with mixed_precision: bf16 asks of a recipe's settings.
BF16 = {"mixed_precision": "bf16"}
FSDP2 = TORCHRUN | {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
ZERO2, ZERO3 = (
    TORCHRUN | {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
    for stage in "23"
)


@pytest.fixture
def environment(monkeypatch):
    """Set variables, and put everything back that `adopt_launcher` removes."""

    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.fixture
def gpus(monkeypatch):
    """Say how many GPUs there are."""
    return lambda number: monkeypatch.setattr("torch.cuda.device_count", lambda: number)


@pytest.mark.parametrize(
    ("kind", "number", "message"),
    [
        ("magic", 2, "--launch magic is not possible: it is ddp, fsdp2, zero2, zero3, or the file"),
        ("zero2", 2, "there is no GPU here. Use --launch ddp --processes 2"),
        (None, 2, "--processes 2 without --launch is not possible"),
        ("ddp", None, "needs --processes N"),
        ("ddp", 1, "needs --processes N"),
        ("fsdp2", None, "needs --processes N"),
        ("fsdp2", 2, "there is no GPU here. Use --launch ddp --processes 2"),
        ("zero3", 4, "there is no GPU here. Use --launch ddp --processes 4"),
        ("fsdp2_8_gpus.yaml", None, "there is no GPU here. Use --launch ddp --processes 8"),
        ("nowhere.yaml", None, "no such file, and no config of that name .*fsdp2_2_gpus.yaml"),
    ],
)
def test_what_cannot_be_asked_for(kind, number, message, gpus):
    gpus(0)
    with pytest.raises(ConfigError, match=message):
        launch.launch_of(kind, number)


def test_options(gpus):
    gpus(0)
    assert launch.launch_of(None, None) == Launch()
    assert launch.launch_of("ddp", 3) == Launch(3)
    gpus(8)
    assert launch.launch_of("fsdp2", 4) == Launch(4, "fsdp2")
    assert launch.launch_of("zero2", 8) == Launch(8, "zero2")
    assert launch.launch_of("zero3", 8) == Launch(8, "zero3")


def test_without_deepspeed_its_ways_are_refused(gpus, monkeypatch):
    gpus(8)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'plumbline-rlhf\[deepspeed\]'"):
        launch.launch_of("zero2", 8)
    assert launch.launch_of("fsdp2", 8) == Launch(8, "fsdp2")


def test_each_process_needs_a_gpu_where_there_are_any(gpus):
    gpus(2)
    assert launch.launch_of("ddp", 2) == Launch(2)
    with pytest.raises(ConfigError, match="3 processes are asked for, and there are 2 GPUs"):
        launch.launch_of("ddp", 3)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_configs_of_accelerate_that_come_with_it(file, gpus):
    """Found by path and by name, and accelerate's own reader takes them, too."""
    from accelerate.commands.config.config_args import load_config_from_file

    kind, *_, number, _ = file.stem.split("_")
    machines = int(file.stem.split("_")[1]) if "machines" in file.stem else 1
    gpus(8)
    place = Place(machines, 1, "first", 29500) if machines > 1 else None
    where = (1, "first") if machines > 1 else ()
    asked = (int(number) * machines, None if kind == "ddp" else kind, BF16, place)
    by_path, by_name = (launch.launch_of(name, None, *where) for name in (str(file), file.name))
    assert by_path == by_name == asked
    assert load_config_from_file(str(file)).num_processes == int(number) * machines


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3", "multi_gpu"])
def test_configs_of_accelerate_that_come_with_trl(name, gpus):
    import trl

    gpus(8)
    file = Path(trl.__file__).parent / "accelerate_configs" / f"{name}.yaml"
    kind = None if name == "multi_gpu" else name
    assert launch.launch_of(str(file), None) == Launch(8, kind, BF16)
    assert launch.launch_of(str(file), 2) == Launch(2, kind, BF16)


TWO = "num_machines: 2\nmain_process_ip: first"
DEEPSPEED = "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {{{}}}\n"
CONFIG = "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2}\n"


@pytest.mark.parametrize(
    ("found", "other", "message"),
    [
        ("num_processes: 2", "num_processes: 2\nnum_machines: 2", "Set main_process_ip there"),
        ("num_processes: 2", f"num_processes: 3\n{TWO}", "3 processes cannot be shared evenly"),
        ("num_processes: 2", f"num_processes: 2\n{TWO}\nmachine_rank: 2", "The machine rank is 2"),
        *(
            ("num_processes: 2", f"num_processes: 2\n{TWO}{address}", "is not a name or an IP")
            for address in (":29500", "://x", " and second")
        ),
        ("num_processes: 2", "main_process_port: 99999", "Set it to a number from 1 to 65535"),
        ("num_processes: 2", "num_processes: 1", "num_processes is 1"),
        ("num_processes: 2", "mixed_precision: fp16", "mixed_precision is 'fp16'"),
        ("num_processes: 2", "use_cpu: true", "On a CPU set MULTI_CPU"),
        ("num_processes: 2", "debug: true", "debug is True; what is possible is false"),
        ("num_processes: 2", "gpu_ids: 0,1", "Choose GPUs by CUDA_VISIBLE_DEVICES"),
        ("num_processes: 2", "dynamo_config: {dynamo_backend: INDUCTOR}", "dynamo_config is"),
        ("FSDP", "MULTI_GPU", "has a fsdp_config, which has no effect with .* MULTI_GPU"),
        ("num_processes: 2", "tensor_parallel: 2", "tensor_parallel is not possible here"),
        ("fsdp_version: 2", "fsdp_version: 1", "fsdp_version is 1; what is possible is 2"),
        ("fsdp_version: 2", "offload: true", "has no fsdp_config with fsdp_version"),
        (
            CONFIG,
            DEEPSPEED.format("zero_stage: 3, gradient_clipping: x"),
            "gradient_clipping 'x', which is not a number",
        ),
        (
            CONFIG,
            DEEPSPEED.format("zero_stage: 3, offload_param_device: cpu"),
            r"is 'cpu'; what is possible is none\. Take more GPUs",
        ),
        (
            CONFIG,
            DEEPSPEED.format("deepspeed_config_file: ds.json, zero_stage: 3"),
            "deepspeed_config_file is not possible here. Say zero_stage",
        ),
        (
            CONFIG,
            DEEPSPEED.format("deepspeed_config_file: ds.json"),
            "no deepspeed_config with zero_stage. Say zero_stage",
        ),
        ("num_processes: 2", "fp8_config: {a: 1}", "what is possible is to leave it out"),
        ("FSDP", "MEGATRON_LM", "distributed_type is 'MEGATRON_LM'"),
        (CONFIG, "- 1\n", "holds no settings"),
        (CONFIG, "{", "cannot be read"),
        (CONFIG, "num_processes: 2\n", "has no distributed_type"),
    ],
)
def test_configs_that_ask_for_something_else(found, other, message, gpus, tmp_path):
    gpus(8)
    file = tmp_path / "accelerate.yaml"
    file.write_text(CONFIG)
    assert launch.launch_of(str(file), None) == Launch(2, "fsdp2")
    file.write_text(CONFIG.replace(found, other))
    with pytest.raises(ConfigError, match=message):
        launch.launch_of(str(file), None)


def test_a_stage_of_zero_may_be_written_as_any_number(gpus, tmp_path):
    gpus(8)
    file = tmp_path / "accelerate.yaml"
    file.write_text(DEEPSPEED.format("zero_stage: 2.0"))
    assert launch.launch_of(str(file), None) == Launch(2, "zero2")


def test_what_a_recipe_decides_is_compared_with_it(gpus, tmp_path):
    """A value that the recipe's settings contradict is refused; the same value is no problem."""
    gpus(8)
    file = tmp_path / "zero3.yaml"
    file.write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 2\nmixed_precision: 'no'\ndeepspeed_config:\n"
        "  {zero_stage: 3, gradient_clipping: 0.3, gradient_accumulation_steps: 4}\n"
    )
    found = launch.launch_of(str(file), None).settings
    assert found == {"mixed_precision": "no", "max_grad_norm": 0.3, "gradient_accumulation": 4}
    training = TrainingConfig(max_grad_norm=0.3, gradient_accumulation=4, bf16=False)

    def check(**changes):
        config = SFTConfig(training=training.model_copy(update=changes))
        check_settings(found, settings_of_trainings(config, "sft."))

    check()
    for changes, message in (
        ({"max_grad_norm": 1.0}, "asks for gradient_clipping 0.3, and sft.training.max_grad_norm"),
        ({"gradient_accumulation": 1}, "asks for gradient_accumulation_steps 4, and sft.training"),
        ({"bf16": True}, r"mixed_precision no, and sft\.training\.bf16 means bfloat16 on"),
    ):
        with pytest.raises(ConfigError, match=message):
            check(**changes)


def test_a_number_format_that_a_recipe_does_not_compute_in(tmp_path, capsys):
    """No GPU here: bf16 null is float32, and PPO's precision auto is the weights' format."""
    for config, name in ((PPOConfig(), "precision"), (SFTConfig(), "training.bf16")):
        with pytest.raises(ConfigError, match=f"asks for mixed_precision bf16, and {name} means"):
            check_settings(BF16, settings_of_trainings(config))
        check_settings({}, settings_of_trainings(config))
    check_settings(BF16, settings_of_trainings(PPOConfig(precision="bfloat16")))
    file = tmp_path / "cpu.yaml"
    file.write_text("distributed_type: MULTI_CPU\nnum_processes: 2\nmixed_precision: bf16\n")
    with pytest.raises(SystemExit):
        main(["run", "train_sft", "--launch", str(file), "--home", str(tmp_path / "home"),
              "--set", "model=m", "--set", "data=d"])  # fmt: skip
    assert "and sft.training.bf16 means the number format of the weights" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_cpus_and_gpus_of_a_config(gpus, tmp_path):
    file = tmp_path / "accelerate.yaml"
    for kind, count, message in (
        ("MULTI_CPU", 2, "trainings on the CPU, and there are GPUs"),
        ("MULTI_GPU", 0, "asks for GPUs, and there is no GPU here"),
    ):
        file.write_text(f"distributed_type: {kind}\nnum_processes: 2\n")
        gpus(count)
        with pytest.raises(ConfigError, match=message):
            launch.launch_of(str(file), None)
        gpus(2 - count)
        assert launch.launch_of(str(file), None) == Launch(2)


def test_a_launcher_on_several_machines(environment):
    """The first process of each machine takes part; the others end."""
    environment(**TORCHRUN | {"WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0",
                              "TORCHELASTIC_USE_AGENT_STORE": "True"})  # fmt: skip
    place = Place(2, 1, "127.0.0.1", 29500, "plumbline/port/0")
    assert launch.adopt_launcher() == (0, Launch(4, place=place))
    environment(**TORCHRUN | {"WORLD_SIZE": "4", "RANK": "3"})
    assert launch.adopt_launcher() == (1, Launch(4, place=place._replace(store_key=None)))


def test_a_launcher_and_options(environment, gpus):
    """An option may say how a launcher's processes share the weights, and nothing else."""
    gpus(2)
    environment(**TORCHRUN)
    assert launch.how_to_launch(Options("fsdp2")) == (1, Launch(2, "fsdp2"))
    for options in (Options("ddp", 2), Options("fsdp2_2_gpus.yaml"), Options(machine_rank=1)):
        environment(**TORCHRUN)
        with pytest.raises(ConfigError, match="A launcher has started 2 processes, and options"):
            launch.how_to_launch(options)
    assert launch.how_to_launch(Options("ddp", 2)) == (0, Launch(2))


def test_options_for_several_machines_without_any(gpus):
    gpus(2)
    with pytest.raises(ConfigError, match="--machine-rank 1 needs --launch FILE"):
        launch.launch_of("ddp", 2, 1)
    with pytest.raises(ConfigError, match="and ddp_2_gpus"):
        launch.launch_of("ddp_2_gpus.yaml", None, None, "first")


@stage("policy", trains_in="several processes")
def whole(stage):
    return {}


def test_a_training_that_cannot_share_its_weights_is_refused(tmp_path):
    run = Run(tmp_path, "run", "test", Config(), processes=2, sharding="fsdp2")
    with pytest.raises(ConfigError, match=r"whole cannot share the weights .*Use --launch ddp"):
        run.make("policy", whole)


def test_a_launcher_is_adopted_and_its_variables_are_gone(environment):
    environment(**TORCHRUN)
    assert launch.adopt_launcher() == (1, Launch(2))
    assert not set(TORCHRUN) & set(os.environ)
    assert launch.adopt_launcher() == (0, Launch())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN | {"ACCELERATE_USE_FSDP": "true"}, "asks for FSDP 1"),
        (FSDP2, "asks for fsdp2, .* there is no GPU here. Use --launch ddp"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed with ZeRO stage unknown"),
        (
            ZERO3 | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "Ds.json"},
            "config_file 'Ds.json', which is",
        ),
        (ZERO3, "asks for zero3, .* there is no GPU here"),
        (TORCHRUN | {"WORLD_SIZE": "5"}, "5 processes, of which 2 on this machine"),
        (FSDP2 | {"FSDP_OFFLOAD_PARAMS": "true"}, "asks for fsdp_offload_params 'true'"),
        (TORCHRUN | {"ACCELERATE_MIXED_PRECISION": "fp16"}, "asks for mixed_precision 'fp16'"),
        (TORCHRUN | {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, "asks for dynamo_backend"),
        # accelerate launch with a config of several processes on a CPU starts a single one.
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, "and started one"),
    ],
)
def test_launches_that_would_train_something_else(environment, gpus, variables, message):
    gpus(0)
    environment(**variables)
    with pytest.raises(ConfigError, match=message):
        launch.adopt_launcher()


@pytest.mark.parametrize(
    ("variables", "kind"), [(FSDP2, "fsdp2"), (ZERO2, "zero2"), (ZERO3, "zero3")]
)
def test_a_launcher_that_shares_the_weights(environment, gpus, variables, kind):
    gpus(2)
    environment(**variables)
    assert launch.adopt_launcher() == (1, Launch(2, kind))
    assert not [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]


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


def test_more_processes_than_a_machine_without_gpus_can_hold_are_refused(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(launch.os, "cpu_count", lambda: 2)
    assert launch.launch_of("ddp", 16).processes == 16
    with pytest.raises(ConfigError, match="it has 2 cores and no GPU"):
        launch.launch_of("ddp", 17)
