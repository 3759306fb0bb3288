"""The same harness as a hook: it judges what trains and disturbs nothing."""

from __future__ import annotations

import pytest

from evaluation.config import EvaluationConfig
from evaluation.harness import Harness
from evaluation.sample_files import write_samples
from plumbline.data.records import assistant, write_dataset
from plumbline.lm.generation import SamplingConfig
from plumbline.lm.policy import Policy
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.exact_resume import ExactResume
from plumbline.world.data import demonstrations as world_demonstrations
from plumbline.world.gold import GoldUtility
from reward.config import RewardConfig
from reward.train import train_reward_model
from sft.config import SFTConfig
from sft.train import train_sft

CONFIG = EvaluationConfig(
    prompts=8, prompts_during_training=4, resamples=100, sampling=SamplingConfig(max_new_tokens=8)
)
TRAINING = TrainingConfig(
    learning_rate=5e-3, epochs=1, batch_size=8, log_every=1, checkpoint_every=2
)


class Folder(Artifact):
    """A folder without a manifest."""

    id = "folder"


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    rows = world_demonstrations(0, 40)
    folder = tmp_path_factory.mktemp("demonstrations")
    write_dataset(
        folder, {"train": rows[:32], "test": rows[32:]}, kind="messages", title="D", description=""
    )
    return Folder(folder)


@pytest.fixture(scope="module")
def preferences(prompts, tmp_path_factory):
    rows = [
        {"prompt": p, "chosen": [assistant("Yes. " * 3)], "rejected": [assistant("No way " * n)]}
        for p in prompts
        for n in (1, 2)
    ]
    folder = tmp_path_factory.mktemp("preferences")
    splits = {"train": rows[:16], "test": rows[16:]}
    write_dataset(folder, splits, kind="preference", title="P", description="")
    return Folder(folder)


def evaluations(stage):
    """Return the figures of each look, by step."""
    lines = read_metrics(stage.folder / "metrics.jsonl")
    return {line["step"]: line for line in lines if any(name.startswith("eval/") for name in line)}


def sft(folder, base, demonstrations, method, hook):
    stage = Stage(folder, Reporter(quiet=True))
    config = SFTConfig(
        tuning=TuningConfig(method=method),
        training=TRAINING,
        evaluations=2,
    )
    train_sft(
        stage, config=config, base=Folder(base), demonstrations=demonstrations, seed=0, hook=hook
    )
    return stage


@pytest.mark.parametrize("method", ["lora", "full"])
def test_sft_is_judged_from_its_base_on_and_not_changed_by_it(
    method, base_folder, demonstrations, prompts, tmp_path
):
    hook = Harness(CONFIG, prompts, [GoldUtility(0)], data_seed=0)
    watched = sft(tmp_path / "watched", base_folder, demonstrations, method, hook)
    alone = sft(tmp_path / "alone", base_folder, demonstrations, method, None)
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    assert (watched.folder / name).read_bytes() == (alone.folder / name).read_bytes()
    found = evaluations(watched)
    assert sorted(found) == [0, 2, 4]
    assert found[0]["eval/kl"] == pytest.approx(0, abs=1e-3)
    assert found[4]["eval/kl"] > 0.05
    assert {"eval/gold", "eval/words", "eval/finished"} <= set(found[4])
    files = {file.name for file in (watched.folder / "evaluations").iterdir()}
    assert files == {"step-0.parquet", "step-2.parquet", "step-4.parquet"}
    # The last look is of the policy that was saved, judged as it will be afterwards.
    rows = hook.evaluate(Policy.load(watched.folder), Policy.load(base_folder), hook.prompts[:4])
    after = {f"eval/{key}": value for key, value in hook.metrics(rows).items()}
    last = {key: value for key, value in found[4].items() if key in after}
    assert last == pytest.approx(after, abs=1e-4)


def test_sft_killed_between_looks_ends_with_the_same_figures(
    base_folder, demonstrations, prompts, tmp_path, monkeypatch
):
    hook = Harness(CONFIG, prompts, [GoldUtility(0)], data_seed=0)
    whole = sft(tmp_path / "whole", base_folder, demonstrations, "lora", hook)
    save = ExactResume._save_checkpoint

    def save_and_die(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactResume, "_save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        sft(tmp_path / "cut", base_folder, demonstrations, "lora", hook)
    monkeypatch.setattr(ExactResume, "_save_checkpoint", save)
    cut = sft(tmp_path / "cut", base_folder, demonstrations, "lora", hook)
    for file in sorted(whole.folder.rglob("*")):
        if file.is_file():
            other = cut.folder / file.relative_to(whole.folder)
            assert other.read_bytes() == file.read_bytes(), file.name


def test_a_reward_model_is_judged_and_not_changed_by_it(
    base_folder, preferences, prompts, tmp_path
):
    texts = ["Yes.", "No way.", "Certainly. The saws cost $7.", "No way no way no way."]
    write_samples(
        tmp_path / "samples.parquet",
        [
            {"prompt_id": str(n), "prompt": prompt, "response": text}
            for n, (prompt, text) in enumerate(zip(prompts, texts, strict=False))
        ],
    )
    hook = Harness(
        CONFIG, prompts, [GoldUtility(0)], 0, responses=Folder(tmp_path), pairs=preferences
    )

    def train(name, hook):
        stage = Stage(tmp_path / name, Reporter(quiet=True))
        config = RewardConfig(
            tuning=TuningConfig(method="lora", rank=4), training=TRAINING, evaluations=1
        )
        figures = train_reward_model(
            stage, config=config, policy=Folder(base_folder), preferences=preferences, seed=0,
            hook=hook,
        )  # fmt: skip
        return stage, figures

    watched, figures = train("watched", hook)
    alone, _ = train("alone", None)
    name = "adapter_model.safetensors"
    assert (watched.folder / name).read_bytes() == (alone.folder / name).read_bytes()
    found = evaluations(watched)
    assert sorted(found) == [0, 2]
    assert found[2]["eval/accuracy"] == figures["accuracy"]
    assert {"eval/margin", "eval/correlation_with_gold"} <= set(found[2])
    assert evaluations(alone) == {}
