"""Supervised fine-tuning: LoRA, QLoRA and full; the loss on the assistant alone; exact resume."""

from __future__ import annotations

import pytest
import torch

from plumbline.data.records import assistant, user, write_dataset
from plumbline.dropped import Dropped
from plumbline.lm.context import LengthLimit
from plumbline.lm.load import load_causal_lm
from plumbline.lm.model_folder import source_of
from plumbline.lm.tuning import TuningConfig
from plumbline.runs.artifacts import Artifact
from plumbline.runs.metrics import read_metrics
from plumbline.runs.progress import Reporter
from plumbline.runs.stage import Stage
from plumbline.training.config import TrainingConfig
from plumbline.training.exact_resume import ExactResume
from plumbline.world.data import demonstrations as world_demonstrations
from sft.config import SFTConfig
from sft.train import tokenize, train_sft


class Folder(Artifact):
    """A folder as an artefact without a manifest."""

    @property
    def id(self) -> str:
        return self.path.name


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
    rows = world_demonstrations(0, 60)
    folder = tmp_path_factory.mktemp("demonstrations")
    splits = {"train": rows[:48], "test": rows[48:]}
    write_dataset(folder, splits, kind="messages", title="D", description="")
    return Folder(folder)


def config(method: str = "lora") -> SFTConfig:
    return SFTConfig(
        tuning=TuningConfig(method=method),
        training=TrainingConfig(
            learning_rate=5e-3, epochs=2, batch_size=8, log_every=2, checkpoint_every=4
        ),
    )


def train(folder, base_folder, demonstrations, method="lora"):
    stage = Stage(folder, Reporter(quiet=True))
    figures = train_sft(
        stage, config=config(method), base=Folder(base_folder), demonstrations=demonstrations,
        seed=0,
    )  # fmt: skip
    return stage, figures


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_each_tuning_learns_and_saves_what_loads(base_folder, demonstrations, tmp_path, method):
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    stage, figures = train(tmp_path / method, base_folder, demonstrations, method)
    losses = [line["loss"] for line in read_metrics(stage.folder / "metrics.jsonl") if
              "loss" in line]  # fmt: skip
    assert losses[-1] < losses[0] - 0.1
    assert figures["held_out_loss"] < losses[0]
    assert (source_of(stage.folder).adapter is None) == (method == "full")
    load_causal_lm(stage.folder)
    share = figures["trainable_parameters"] / figures["parameters"]
    assert share == 1 if method == "full" else share < 0.5


def test_a_killed_training_goes_on_with_the_same_bytes(
    base_folder, demonstrations, tmp_path, monkeypatch
):
    whole, _ = train(tmp_path / "whole", base_folder, demonstrations)
    save = ExactResume._save_checkpoint

    def save_and_die(self, model, trial):
        save(self, model, trial)
        raise KeyboardInterrupt

    monkeypatch.setattr(ExactResume, "_save_checkpoint", save_and_die)
    for attempt in (1, 2):  # killed after the first checkpoint, and after the second
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", base_folder, demonstrations)
        latest = Stage(tmp_path / "cut", Reporter(quiet=True)).checkpoints.latest
        assert latest.name == f"step-{4 * attempt}"
    monkeypatch.setattr(ExactResume, "_save_checkpoint", save)
    cut, _ = train(tmp_path / "cut", base_folder, demonstrations)
    for name in ("metrics.jsonl", "adapter_model.safetensors"):
        assert (cut.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_labels_are_where_the_assistant_speaks(tokenizer):
    rows = [{"messages": [user("One?"), assistant("Two."), user("Three?"), assistant("Four.")]}]
    (row,) = tokenize(rows, tokenizer, LengthLimit(99, ""), Dropped())
    labels = [
        token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100
    ]
    end = tokenizer.eos_token
    assert tokenizer.decode(labels) == f"Two.{end}Four.{end}"


def test_the_loss_is_that_of_a_plain_model(base_folder, tokenizer):
    """Labels line up with what transformers shifts: the cross-entropy of the assistant's tokens."""
    rows = world_demonstrations(0, 4)
    data = tokenize(rows, tokenizer, LengthLimit(999, ""), Dropped())
    model = load_causal_lm(base_folder).eval()
    total, count = 0.0, 0
    for row in data:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        logprobs = torch.log_softmax(model(ids).logits[0], -1)
        for position in range(1, len(labels)):
            if labels[position] != -100:
                total -= logprobs[position - 1, labels[position]].item()
                count += 1
    batch = [torch.tensor([row["input_ids"]]) for row in data]
    losses = [
        model(ids, labels=torch.tensor([row["labels"]])).loss.item()
        for ids, row in zip(batch, data, strict=True)
    ]
    weights = [sum(label != -100 for label in row["labels"][1:]) for row in data]
    mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
    assert mean == pytest.approx(total / count, rel=1e-4)
