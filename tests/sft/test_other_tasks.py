"""Training on new rows with others along: replay, drift, rollback, conflicts, exact resume."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from plumbline.data.records import assistant, user, write_dataset
from plumbline.errors import ConfigError
from plumbline.lm.load import load_causal_lm
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.exact_resume import ExactResume
from plumbline.training.held_out import HeldOutConfig
from sft.config import OtherTasksConfig, SFTConfig
from sft.train import train_sft


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


def task(folder, answer, rows=48):
    """Questions with one answer to all of them."""
    talks = [
        {"messages": [user(f"Question {n} of {n % 7}?"), assistant(answer)], "form": "single_turn"}
        for n in range(rows)
    ]
    talks = [talk | {"origin": "x", "row": n} for n, talk in enumerate(talks)]
    splits = {"train": talks[:40], "test": talks[40:]}
    write_dataset(folder, splits, kind="messages", title="D", description="")
    return Folder(folder)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return task(folder / "new", "Yes, we are open."), task(folder / "old", "No: out of stock!")


@pytest.fixture(scope="module")
def knows_old(base_folder, tasks, tmp_path_factory):
    """A model that has learnt the old task, and nothing of the new one."""
    config = SFTConfig(
        tuning=TuningConfig(method="full"),
        training=TrainingConfig(learning_rate=3e-3, epochs=4, batch_size=8),
    )
    stage = Stage(tmp_path_factory.mktemp("knows-old"), Reporter(quiet=True))
    train_sft(stage, config=config, base=Folder(base_folder), demonstrations=tasks[1], seed=0)
    return stage.folder


def train(folder, base_folder, tasks, *, every=None, keep="final", **other):
    config = SFTConfig(
        tuning=TuningConfig(method="full"),
        training=TrainingConfig(
            learning_rate=3e-3, epochs=2, batch_size=8, log_every=2, checkpoint_every=4
        ),
        held_out=HeldOutConfig(every=every, keep=keep) if every else HeldOutConfig(),
        other_tasks=OtherTasksConfig(**other),
    )
    new, old = tasks
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_sft(
        stage, config=config, base=Folder(base_folder), demonstrations=new, seed=0,
        others={"old": old},
    )  # fmt: skip
    return stage, figures


def test_a_share_of_the_rows_is_replayed_and_both_tasks_are_learnt(base_folder, tasks, tmp_path):
    stage, figures = train(tmp_path / "half", base_folder, tasks, share=0.5)
    lines = read_metrics(stage.folder / "metrics.jsonl")
    start = next(line for line in lines if "held_out_loss/old" in line)
    assert start["step"] == 0
    # 40 new rows in two epochs are half of 160 rows: 20 steps of 8.
    assert max(line["step"] for line in lines) == 20
    fall = start["held_out_loss/old"] - figures["held_out_loss/old"]
    assert fall > 0.5 and figures["drift/old"] == pytest.approx(-fall)


@pytest.mark.parametrize("gradients", ["sum", "pcgrad"])
def test_a_killed_training_of_several_tasks_ends_with_the_same_bytes(
    base_folder, tasks, tmp_path, monkeypatch, gradients
):
    options = {"every": 3, "sampling": "dynamic", "max_rise": 1.0, "gradients": gradients}
    whole, _ = train(tmp_path / "whole", base_folder, tasks, **options)
    save = ExactResume._save_checkpoint

    def save_and_die(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactResume, "_save_checkpoint", save_and_die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", base_folder, tasks, **options)
    monkeypatch.setattr(ExactResume, "_save_checkpoint", save)
    cut, _ = train(tmp_path / "cut", base_folder, tasks, **options)
    for name in ("metrics.jsonl", "model.safetensors", "best/model.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_what_another_task_loses_too_much_by_is_rolled_back(knows_old, tasks, tmp_path):
    """The old task may not lose anything; the new one is trained so hard that it does."""
    stage, figures = train(tmp_path / "strict", knows_old, tasks, every=2, share=0.01, max_rise=0.0)
    lines = read_metrics(stage.folder / "metrics.jsonl")
    drifts = {line["step"]: line["drift/old"] for line in lines if "drift/old" in line}
    allowed = max([0, *(step for step, drift in drifts.items() if drift <= 0)])
    assert drifts[max(drifts)] > 0
    assert figures["rolled_back_to_step"] == allowed < max(drifts)
    assert figures["drift/old"] <= 1e-6
    if allowed == 0:
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            start, now = (load_causal_lm(f)(ids).logits for f in (knows_old, stage.folder))
        torch.testing.assert_close(now, start)


def test_what_does_not_fit_is_refused(base_folder, tasks, tmp_path):
    with pytest.raises(ValidationError, match=r"Set held_out.every"):
        SFTConfig(other_tasks=OtherTasksConfig(max_rise=0.1))
    with pytest.raises(ConfigError, match="Give one for each, or none"):
        train(tmp_path / "weights", base_folder, tasks, weights=(1.0, 2.0))
