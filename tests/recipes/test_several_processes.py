"""Trainings in several processes (DDP over gloo): the same losses as in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.run
from safetensors.torch import load_file

from plumbline.commands.recipe_book import execute, find
from plumbline.config import Config
from plumbline.data.records import assistant
from plumbline.errors import ConfigError
from plumbline.lm.generation import SamplingConfig
from plumbline.runs.calls import SourceFile, defer
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.run import Run
from plumbline.training.config import TrainingConfig
from plumbline.world.clerks import Style, answer
from plumbline.world.data import demonstrations, prompts
from plumbline.world.shop import Shop
from preference.config import KTOConfig, OnlineConfig
from preference.kto import train_kto
from preference.online import train_online
from preference.pairs_config import PreferenceFileConfig
from preference.sources import import_preferences
from recipes._models import find_model
from reward.scorer import RewardModelScorer
from rl.config import AdvantageConfig, PPOConfig
from rl.ppo import train_ppo
from tests import warm_client
from tests.recipes.killing import kill_at_a_checkpoint
from tests.warm_start import ADDRESS

pytestmark = pytest.mark.slow

#: Sums in another order, in float32: relative error of losses, and absolute error of weights after
#: four steps of AdamW with a learning rate of 1e-3.
LOSS, WEIGHT = 1e-5, 2e-4
#: One of each; an adapter of a reward model comes with a whole head.
TUNING = {"sft": "full", "reward": "lora", "dpo": "full"}
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


def train(recipe, part, base_folder, data, home, processes, steps=4, more=()):
    """Train; return the artefact."""
    values = [*settings(part, base_folder, data, steps), *more]
    run = execute(
        find(recipe), None, values, home, Reporter(quiet=True), f"run-{processes}",
        processes=processes,
    )  # fmt: skip
    return next(run.stages[name] for name in run.stages if name in (part, f"{part}/seed-0"))


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
    # The same seed makes the same bytes in two processes, too.
    again = train("train_sft", "sft", base_folder, conversations, tmp_path / "again", 2)
    assert again.id == two.id
    for name in ("metrics.jsonl", FILES["full"]):
        assert (again.path / name).read_bytes() == (two.path / name).read_bytes()


@pytest.fixture(scope="module")
def preferences(tmp_path_factory):
    """A file of preferences: the same answers, of which rude ones are rejected."""
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
    file = tmp_path_factory.mktemp("data") / "preferences.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def reward_models(base_folder, preferences, tmp_path_factory):
    """Reward models that were trained in one process and in two."""
    home = tmp_path_factory.mktemp("rewards")
    return [train("train_reward", "reward", base_folder, preferences, home, n) for n in (1, 2)]


def test_reward_model(reward_models):
    one, two = reward_models
    compare(one, two, "reward")
    assert two.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.2)


def test_an_ensemble_resumes_with_another_number_of_processes(base_folder, preferences, tmp_path):
    """Begun by two processes, and finished by one: a member that is done stays as it is."""

    def run(home, processes):
        more = ["reward.ensemble.members=2", "reward.ensemble.how=minimum"]
        return train("train_reward", "reward", base_folder, preferences, home, processes, more=more)

    one, cut = run(tmp_path / "one", 1), tmp_path / "cut"
    in_second = "**/member-1/checkpoints/step-*"
    kill_at_a_checkpoint(lambda: run(cut, 2), cut, 2, in_second)
    (first,) = cut.glob("**/out/member-0/adapter_model.safetensors")
    done = first.read_bytes()
    finished = run(cut, 1)
    assert finished.id == one.id
    assert finished.manifest.machine["processes_before"] == [2]
    assert (finished.path / "member-0" / FILES["lora"]).read_bytes() == done
    for name in ("member-0", "member-1"):
        weights = [load_file(artifact.path / name / FILES["lora"]) for artifact in (one, finished)]
        for key, value in weights[0].items():
            assert torch.allclose(weights[1][key], value, rtol=0, atol=WEIGHT), (name, key)
    assert finished.metrics["accuracy"] == pytest.approx(one.metrics["accuracy"], abs=0.2)


def same_lines(one, other, **tolerance):
    """Compare all figures of all lines of two metrics files."""
    lines = [read_metrics(artifact.path / "metrics.jsonl") for artifact in (one, other)]
    assert len(lines[0]) == len(lines[1]) > 1
    for first, second in zip(*lines, strict=True):
        assert second == pytest.approx(first, **tolerance)


def test_preferences_directly(base_folder, preferences, tmp_path):
    more = [
        "evaluation.prompts=4", "evaluation.prompts_during_training=4",
        "evaluation.sampling.max_new_tokens=8",
    ]  # fmt: skip
    one, two = (
        train("train_dpo", "dpo", base_folder, preferences, tmp_path / str(n), n, more=more)
        for n in (1, 2)
    )
    compare(one, two, "dpo")
    same_lines(one, two, rel=1e-3, abs=1e-4)
    # Each process computed the reference's log-probabilities of its share of the batches.
    (cached,), (shared,) = ((tmp_path / n / "store" / ".cache").iterdir() for n in "12")
    assert shared.name == cached.name
    assert shared.read_bytes() == cached.read_bytes()


def no_figures():
    """A hook that judges nothing."""
    return lambda policy, reference, step, folder: {}


@pytest.mark.parametrize("method", ["kto", "bco", "online"])
def test_relatives_of_preferences(method, base_folder, preferences, reward_models, tmp_path):
    """KTO and BCO compare with the whole batch; online steps are of 3 pairs, shared unevenly."""
    training = TrainingConfig(
        learning_rate=1e-3, max_steps=3, batch_size=8, log_every=1, checkpoint_every=1
    )
    made = []
    for processes in (1, 2):
        run = Run(tmp_path, f"run-{processes}", "test", Config(), processes=processes)
        start = find_model(run, str(base_folder), "model")
        shared = {"policy": start, "hook": defer(no_figures), "seed": 0}
        if method == "online":
            config = OnlineConfig(
                rounds=2, prompts_per_round=5, responses=2, minibatch_size=3, evaluations=0,
                sampling=SamplingConfig(max_new_tokens=8), learning_rate=1e-3,
            )  # fmt: skip
            scorer = defer(RewardModelScorer, model=reward_models[0])
            given = {"prompts": prompts(0, 12, "preferences"), "scorer": scorer}
            policy = run.make(method, train_online, config=config, **given, **shared)
        else:
            rows = run.make(
                "preferences", import_preferences, config=PreferenceFileConfig(),
                file=SourceFile(preferences), data_seed=0,
            )  # fmt: skip
            config = KTOConfig(loss=method, training=training, evaluations=0)
            policy = run.make(method, train_kto, config=config, labels=rows, **shared)
        made.append(policy)
    same_lines(*made, rel=1e-3, abs=1e-4)


def ppo(base_folder, conversations, reward_model, home, processes, *changes):
    """Train by PPO; return the artefact."""
    values = [
        f"model={base_folder}", f"data={conversations}", f"reward={reward_model.path}",
        "ppo.iterations=3", "ppo.batch_size=10", "ppo.minibatch_size=5", "ppo.micro_batch_size=2",
        "ppo.sampling.max_new_tokens=8", "ppo.learning_rate=1e-3", "ppo.kl.target=1",
        "ppo.kl.horizon=20", "ppo.evaluations=1", "ppo.checkpoint_every=1",
        "ppo.keep_checkpoints=false", "evaluation.prompts=4",
        "evaluation.prompts_during_training=4", "evaluation.sampling.max_new_tokens=8", *changes,
    ]  # fmt: skip
    run = execute(
        find("train_ppo"), None, values, home, Reporter(quiet=True), f"run-{processes}",
        processes=processes,
    )  # fmt: skip
    return run.stages["ppo/seed-0"]


@pytest.fixture(scope="module")
def ppo_home(tmp_path_factory):
    """One home for all comparisons: what one process trains is made once."""
    return tmp_path_factory.mktemp("ppo")


@pytest.mark.parametrize("processes", [2, 4])
def test_ppo(base_folder, conversations, reward_models, ppo_home, processes):
    """Rounds of 10 responses and steps of 5, which neither 2 nor 4 processes share evenly."""
    arguments = (base_folder, conversations, reward_models[0], ppo_home)
    one, several = (ppo(*arguments, number) for number in (1, processes))
    # Scores, lengths and KL of three rounds are those of the same responses.
    same_lines(one, several, rel=1e-3, abs=1e-4)
    weights = [load_file(artifact.path / FILES["lora"]) for artifact in (one, several)]
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name], value, rtol=0, atol=WEIGHT), name
    assert several.manifest.arguments["processes"] == processes


def ppo_alone(base_folder, reward_model, home, processes, **changes):
    """Train by PPO without an evaluation; return the artefact."""
    config = PPOConfig(
        batch_size=10, minibatch_size=5, micro_batch_size=2, learning_rate=1e-3,
        sampling=SamplingConfig(max_new_tokens=8), evaluations=0, checkpoint_every=1,
    ).model_copy(update=changes)  # fmt: skip
    run = Run(home, f"run-{processes}", "test", Config(), processes=processes)
    return run.make(
        "ppo", train_ppo, config=config, policy=find_model(run, str(base_folder), "model"),
        prompts=prompts(0, 12, "preferences"), scorer=defer(RewardModelScorer, model=reward_model),
        hook=defer(no_figures), seed=0,
    )  # fmt: skip


def test_ppo_by_groups(base_folder, reward_models, tmp_path):
    changes = {"advantage": AdvantageConfig(estimator="grpo"), "group_size": 5, "iterations": 2}
    one, two = (
        ppo_alone(base_folder, reward_models[0], tmp_path, number, **changes) for number in (1, 2)
    )
    same_lines(one, two, rel=1e-3, abs=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(base_folder, conversations, tmp_path):
    with pytest.raises(ConfigError, match="batch_size is 8, which 3 processes cannot share"):
        train("train_sft", "sft", base_folder, conversations, tmp_path, 3)


@pytest.mark.parametrize("part", ["sft", "ppo"])
def test_a_killed_process_ends_all_and_the_training_resumes(
    part, base_folder, conversations, reward_models, tmp_path
):
    def run(home):
        if part == "sft":
            return train("train_sft", "sft", base_folder, conversations, home, 2, steps=16)
        return ppo_alone(base_folder, reward_models[0], home, 2, iterations=6)

    whole = run(tmp_path / "whole")

    kill_at_a_checkpoint(lambda: run(tmp_path / "cut"), tmp_path / "cut", 2)
    (partial,) = {file.parent.parent for file in (tmp_path / "cut").glob("**/checkpoints/step-*")}
    weights = FILES["full" if part == "sft" else "lora"]
    assert not (partial / "out" / weights).exists()
    resumed = run(tmp_path / "cut")
    for name in ("metrics.jsonl", weights):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_torchrun_means_the_same(base_folder, conversations, tmp_path, warm_start):
    changes = settings("sft", base_folder, conversations)
    done = warm_start.run(
        "--standalone", "--nproc-per-node=2", warm_client.__file__,
        "run", "train_sft", "--home", str(tmp_path), "--name", "run",
        *(part for change in changes for part in ("--set", change)),
        script=Path(torch.distributed.run.__file__), timeout=100, **{ADDRESS: warm_start.begin()},
    )  # fmt: skip
    assert done.returncode == 0, done
    assert done.stdout.count("Done in") == 1
    (manifest,) = (tmp_path / "store").glob("policy-*/manifest.json")
    assert json.loads(manifest.read_text())["arguments"]["processes"] == 2
    again = execute(find("train_sft"), None, changes, tmp_path, Reporter(quiet=True), processes=2)
    assert again.stages["sft"].path == manifest.parent
