"""Small trainings of every kind, which several processes share, and one makes to compare with."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plumbline.commands.recipe_book import execute, find
from plumbline.data.records import assistant, user, write_dataset
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.checkpoints import CheckpointFolder
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

#: Sums in another order, in float32: relative error of losses, and absolute error of weights after
#: four steps of AdamW with a learning rate of 1e-3.
LOSS, WEIGHT = 1e-5, 2e-4
FILES = {"full": "model.safetensors", "lora": "adapter_model.safetensors"}
PARTS = [
    (part, method) for part in ("sft", "reward", "dpo", "kto", "online", "ppo") for method in FILES
] + [("undone", "full")]


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
        # A guard looks at a round of one step afterwards, and undoes one that led too far.
        steps = {"minibatch_size": 10, "ppo_epochs": 1, "guards": {"approx_kl": 1e-4}}
        config = PPOConfig(
            tuning=tuning, iterations=rounds, batch_size=10, micro_batch_size=2,
            learning_rate=1e-3, evaluations=1, checkpoint_every=1, keep_checkpoints=False,
            sampling=SamplingConfig(max_new_tokens=8), kl={"target": 1, "horizon": 20},
            **(steps if part == "undone" else {"minibatch_size": 5}),
        )  # fmt: skip
        train_ppo(
            stage, config=config, policy=base, prompts=prompts(0, 20, "heldout"),
            scorer=Letters(), hook=judge, seed=0,
        )  # fmt: skip


def train_each(
    stage: Stage, *, parts: list[tuple[str, str]], model: Path, data: Path, root: Path
) -> dict[str, float]:
    """Train models one after the other, in the processes of one stage."""
    for part, method in parts:
        own = Stage(root / f"{part}-{method}", Reporter(quiet=True), this_process())
        train(own, part, method, model, data)
    return {}


class StoppedError(Exception):
    """Ends a training in all of its processes, as a kill would."""


def resume_each(
    stage: Stage, *, parts: list[tuple[str, str]], model: Path, data: Path, root: Path
) -> dict[str, float]:
    """Train models that are stopped after their first checkpoint, and resume from it."""

    class StopsAfterOne(CheckpointFolder):
        def save(self, *arguments, **settings) -> None:
            super().save(*arguments, **settings)
            raise StoppedError

    for part, method in parts:
        for stops in (True, False):
            own = Stage(root / f"{part}-{method}", Reporter(quiet=True), this_process())
            if stops:
                own.checkpoints = StopsAfterOne(own.checkpoints.root, writes=own.writes)
            with suppress(StoppedError):
                train(own, part, method, model, data)
    return {}


def in_processes(function, root: Path, processes: int, sharding: str | None, **arguments) -> Path:
    """Call a function as the stage of so many processes; return the folder where it works."""
    run_isolated(
        function, root / f"all-{function.__name__}", {"root": root, **arguments},
        Reporter(quiet=True), lambda: None, processes=processes, sharding=sharding,
    )  # fmt: skip
    return root


def write_data(folder: Path) -> None:
    """Write demonstrations and preferences."""
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


def assert_as_one(part: str, method: str, made: Iterable[Path]) -> None:
    """Compare what one process trained with what several did."""
    one, two = (folder / f"{part}-{method}" / "out" for folder in made)
    lines = [read_metrics(folder / "metrics.jsonl") for folder in (one, two)]
    assert len(lines[0]) == len(lines[1]) >= 3
    for first, second in zip(*lines, strict=True):
        if abs(first.get("rewards/margins", 1.0)) < 1e-4:  # whose sign is that of rounding
            del first["rewards/accuracies"], second["rewards/accuracies"]
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    if part == "undone":
        assert [line["steps"] for line in lines[1] if "steps" in line] == [0, 0, 0]
    if part not in ("online", "ppo", "undone"):
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


def go_on(
    stage: Stage, *, model: Path, data: Path, root: Path, methods: tuple[str, ...] = tuple(FILES)
) -> dict[str, float]:
    """Take up trainings by PPO after their three rounds, for a fourth one."""
    for method in methods:
        own = Stage(root / f"ppo-{method}", Reporter(quiet=True), this_process())
        train(own, "ppo", method, model, data, rounds=4)
    return {}


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
