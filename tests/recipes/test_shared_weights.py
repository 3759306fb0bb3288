"""Trainings whose processes share the weights (FSDP2 over gloo): the same losses as in one process.

All of them are made by one started pair of processes, and by one process alone.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plumbline.commands.recipe_book import execute, find
from plumbline.data.records import assistant, user, write_dataset
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.sharding import problem_with_shares
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.isolation import run_isolated
from plumbline.runs.metrics import read_metrics
from plumbline.runs.processes import this_process
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.world.data import demonstrations, prompts
from preference.config import DPOConfig, KTOConfig, OnlineConfig
from preference.dpo import train_dpo
from preference.kto import train_kto
from preference.online import train_online
from reward.config import RewardConfig
from reward.train import train_reward_model
from rl.config import PPOConfig
from rl.ppo import train_ppo
from sft.config import SFTConfig
from sft.train import train_sft
from tests.recipes.killing import kill_at_a_checkpoint

pytestmark = pytest.mark.slow

#: Sums in another order, in float32: relative error of losses, and absolute error of weights after
#: four steps of AdamW with a learning rate of 1e-3.
LOSS, WEIGHT = 1e-5, 2e-4
FILES = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}
PARTS = [
    (part, method) for part in ("sft", "reward", "dpo", "kto", "online", "ppo") for method in FILES
]


class Folder(Artifact):
    """A folder that stands for an artefact."""

    @property
    def id(self):
        return self.path.name


class Letters:
    """A scorer without a model."""

    name = "letters"

    def score(self, prompts, responses):
        return [float(len(response) % 7) for response in responses]


def judge(policy, reference, step, folder):
    """A hook that samples from the policy and asks the reference for log-probabilities."""
    ids = [policy.encode(prompt) for prompt in prompts(0, 3, "heldout")]
    found = policy.sample(ids, [1, 2, 3], SamplingConfig(max_new_tokens=6))
    responses = [list(generation.ids) for generation in found]
    logprobs = reference.logprobs_of(ids, responses)
    return {"judged": float(logprobs.sum()), "tokens": float(sum(map(len, responses)))}


def train(stage: Stage, part: str, method: str, model: Path, data: Path, rounds: int = 3) -> None:
    """Train one model for four steps of 8 rows, or by rounds."""
    tuning = TuningConfig(method=method, **({"rank": 4} if method == "lora" else {}))
    training = TrainingConfig(
        learning_rate=1e-3, max_steps=4, batch_size=8, log_every=1, checkpoint_every=2,
        activation_checkpointing=part == "sft",
    )  # fmt: skip
    base = Folder(model)
    if part == "sft":
        config = SFTConfig(tuning=tuning, training=training, evaluations=1)
        train_sft(
            stage, config=config, base=base, demonstrations=Folder(data / "demonstrations"),
            seed=0, hook=judge,
        )  # fmt: skip
    elif part == "reward":
        config = RewardConfig(tuning=tuning, training=training)
        pairs = Folder(data / "preferences")
        train_reward_model(stage, config=config, policy=base, preferences=pairs, seed=0)
    elif part == "dpo":
        config = DPOConfig(tuning=tuning, training=training, evaluations=1)
        pairs = Folder(data / "preferences")
        train_dpo(stage, config=config, policy=base, preferences=pairs, hook=judge, seed=0)
    elif part == "kto":
        config = KTOConfig(tuning=tuning, training=training, evaluations=1)
        labels = Folder(data / "preferences")
        train_kto(stage, config=config, policy=base, labels=labels, hook=judge, seed=0)
    elif part == "online":
        # Steps of 3 pairs and a last one of 1, which no two processes share evenly.
        config = OnlineConfig(
            tuning=tuning, rounds=3, prompts_per_round=7, responses=2, minibatch_size=3,
            learning_rate=1e-3, evaluations=1, checkpoint_every=1, keep_checkpoints=False,
            sampling=SamplingConfig(max_new_tokens=8), max_kl=50.0,
        )  # fmt: skip
        train_online(
            stage, config=config, policy=base, prompts=prompts(0, 20, "heldout"),
            scorer=Letters(), hook=judge, seed=0,
        )  # fmt: skip
    else:
        config = PPOConfig(
            tuning=tuning, iterations=rounds, batch_size=10, minibatch_size=5, micro_batch_size=2,
            learning_rate=1e-3, evaluations=1, checkpoint_every=1, keep_checkpoints=False,
            sampling=SamplingConfig(max_new_tokens=8), kl={"target": 1, "horizon": 20},
        )  # fmt: skip
        train_ppo(
            stage, config=config, policy=base, prompts=prompts(0, 20, "heldout"),
            scorer=Letters(), hook=judge, seed=0,
        )  # fmt: skip


def train_all(stage: Stage, *, model: Path, data: Path, root: Path) -> dict[str, float]:
    """Train all models one after the other, in the processes of one stage."""
    for part, method in PARTS:
        own = Stage(root / f"{part}-{method}", Reporter(quiet=True), this_process())
        train(own, part, method, model, data)
    return {}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Demonstrations and preferences."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{**row, "form": "single_turn"} for row in demonstrations(0, 40)]
    write_dataset(
        folder / "demonstrations", {"train": rows[:32], "test": rows[32:]}, kind="messages",
        title="", description="",
    )  # fmt: skip
    pairs = [
        {
            "pair_id": str(n),
            "prompt": [user(row["messages"][-2]["content"])],
            "chosen": [row["messages"][-1]],
            "rejected": [assistant("Make it quick, " + "please " * (n % 5))],
        }
        for n, row in enumerate(rows)
    ]
    write_dataset(
        folder / "preferences", {"train": pairs[:32], "test": pairs[32:]}, kind="preference",
        title="", description="",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(base_folder, data, tmp_path_factory):
    """The folders of what one process made, and of what two made that share the weights."""
    root = tmp_path_factory.mktemp("made")
    for processes in (1, 2):
        run_isolated(
            train_all,
            root / f"all-{processes}",
            {"model": base_folder, "data": data, "root": root / str(processes)},
            Reporter(quiet=True),
            lambda: None,
            processes=processes,
            sharding="fsdp2" if processes > 1 else None,
        )
    return root / "1", root / "2"


@pytest.mark.parametrize(("part", "method"), PARTS)
def test_losses_and_weights_are_those_of_one_process(part, method, made):
    one, two = (folder / f"{part}-{method}" / "out" for folder in made)
    lines = [read_metrics(folder / "metrics.jsonl") for folder in (one, two)]
    assert len(lines[0]) == len(lines[1]) >= 3
    for first, second in zip(*lines, strict=True):
        if abs(first.get("rewards/margins", 1.0)) < 1e-4:  # whose sign is that of rounding
            del first["rewards/accuracies"], second["rewards/accuracies"]
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    if part not in ("online", "ppo"):
        losses = [[line["loss"] for line in some if "loss" in line] for some in lines]
        assert len(losses[0]) == 4
        assert losses[1] == pytest.approx(losses[0], rel=LOSS)
    weights = [load_file(folder / FILES[method]) for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert weights[1][name].dtype == value.dtype
        assert torch.allclose(weights[1][name], value, rtol=0, atol=WEIGHT), name
    files = [{str(p.relative_to(f)) for p in f.rglob("*") if p.is_file()} for f in (one, two)]
    assert files[0] == files[1]


def go_on(stage: Stage, *, model: Path, data: Path, root: Path) -> dict[str, float]:
    """Take up trainings by PPO after their three rounds, for a fourth one."""
    for method in FILES:
        own = Stage(root / f"ppo-{method}", Reporter(quiet=True), this_process())
        train(own, "ppo", method, model, data, rounds=4)
    return {}


def test_ppo_goes_on_whether_its_weights_were_whole_or_in_shares(base_folder, data, made, tmp_path):
    """Its value model has a head that is whole in each process, beside weights in shares."""
    last_lines = {}
    for before, after in ((1, 1), (1, 2), (2, 1)):
        root = tmp_path / f"{before}-{after}"
        for method in FILES:
            shutil.copytree(made[before - 1] / f"ppo-{method}", root / f"ppo-{method}")
        arguments = {"model": base_folder, "data": data, "root": root}
        run_isolated(
            go_on, root / "all", arguments, Reporter(quiet=True), lambda: None,
            processes=after, sharding="fsdp2" if after > 1 else None,
        )  # fmt: skip
        for method in FILES:
            lines = read_metrics(root / f"ppo-{method}" / "out" / "metrics.jsonl")
            last_lines[before, after, method] = [line for line in lines if line["step"] == 4]
    for (before, after, method), found in last_lines.items():
        expected = last_lines[1, 1, method]
        assert len(found) == len(expected) >= 1, (before, after, method)
        for one, other in zip(expected, found, strict=True):
            assert other == pytest.approx(one, rel=1e-3, abs=1e-4), (before, after, method)


def settings(model: Path, rows: Path) -> list[str]:
    """Return settings of supervised fine-tuning that is long enough to be killed."""
    values = {
        "model": model, "data": rows, "sft.training.max_steps": 30, "sft.training.batch_size": 4,
        "sft.training.log_every": 1, "sft.training.checkpoint_every": 5,
        "sft.training.learning_rate": 1e-3, "sft.tuning.method": "full",
    }  # fmt: skip
    return [f"{key}={value}" for key, value in values.items()]


def fine_tune(home: Path, model: Path, rows: Path, processes: int, sharding: str | None = None):
    """Run the recipe of supervised fine-tuning; return its artefact."""
    run = execute(
        find("train_sft"), None, settings(model, rows), home, Reporter(quiet=True),
        f"run-{processes}", processes=processes, sharding=sharding,
    )  # fmt: skip
    return run.stages["sft"]


def killed(home: Path, model: Path, rows: Path, processes: int, *sharding: str) -> None:
    kill_at_a_checkpoint(
        lambda: fine_tune(home, model, rows, processes, *sharding), home, processes
    )


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A file of demonstrations."""
    file = tmp_path_factory.mktemp("rows") / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in demonstrations(0, 60)))
    return file


def test_a_killed_training_resumes_from_the_shares(base_folder, rows, tmp_path):
    arguments = (base_folder, rows, 2, "fsdp2")
    whole = fine_tune(tmp_path / "whole", *arguments)
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


def test_a_model_that_is_not_shared_out_is_refused(monkeypatch):
    """Each process would train a whole copy, and nothing would say so."""
    model = torch.nn.Module()
    model.base_model = torch.nn.Module()
    assert problem_with_shares(model) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("PLUMBLINE_SHARDING", "fsdp2")
    assert "a whole copy of its weights" in problem_with_shares(model)
